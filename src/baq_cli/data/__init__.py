"""Where experience comes from, and what is made of it."""
