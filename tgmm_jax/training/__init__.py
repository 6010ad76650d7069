"""Training one network: the step, the host's loop, checkpoints, its folder."""
