"""How fast this machine trains, against its own limit and against others."""
