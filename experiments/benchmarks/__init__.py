"""How fast: programs beside their peers and beside what the machine can do."""
