"""What a log says of its episodes: marks of ends, episode numbers, counters of steps, counts."""
