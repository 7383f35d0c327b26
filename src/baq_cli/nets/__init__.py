"""Networks with a leading seed axis, and the random streams that feed them."""
