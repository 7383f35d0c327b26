"""What is said of a policy from data alone, without an environment."""
