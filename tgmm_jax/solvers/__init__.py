"""Classical algorithms as pure functions of one problem."""
