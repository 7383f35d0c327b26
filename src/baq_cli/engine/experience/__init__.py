"""Transitions: stored, indexed, drawn as batches."""
