"""The user's Minari folder: reading datasets whole, and putting them into place."""
