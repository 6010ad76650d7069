"""Ways to name the number of components."""
