"""Episodes apart from training."""
