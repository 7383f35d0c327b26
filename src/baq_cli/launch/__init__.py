"""Where a matrix of runs executes."""
