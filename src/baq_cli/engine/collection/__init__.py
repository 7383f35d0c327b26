"""Policies as files, and datasets made with them."""
