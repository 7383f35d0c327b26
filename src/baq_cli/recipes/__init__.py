"""What a run is: a closed, typed recipe."""
