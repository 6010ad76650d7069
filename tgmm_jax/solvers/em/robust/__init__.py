"""Fits of points with outliers: a noise component, Student t components."""
