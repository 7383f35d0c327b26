"""Logs in other formats: rows of a file to episodes, and back."""
