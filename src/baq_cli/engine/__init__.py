"""The loop: stores, updates, phases, evaluation, checkpoints, run directories."""
