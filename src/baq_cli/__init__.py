"""baq: take a logged dataset to a policy that keeps improving online."""

__version__ = "0.1.0"
