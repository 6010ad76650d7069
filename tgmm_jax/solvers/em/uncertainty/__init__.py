"""How sure a fit is: by replicates with other weights, and by curvature."""
