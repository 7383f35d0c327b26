"""What is kept of a run, checked, and brought back."""
