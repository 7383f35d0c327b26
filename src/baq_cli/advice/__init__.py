"""What to do next with a dataset and a policy: advice, with the numbers that it rests on."""
