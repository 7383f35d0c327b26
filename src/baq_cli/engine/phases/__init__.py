"""Pre-training and fine-tuning, from recipe to run directory."""
