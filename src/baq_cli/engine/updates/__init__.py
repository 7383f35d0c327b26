"""Gradient steps: eager, captured, recorded."""
