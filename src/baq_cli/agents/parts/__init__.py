"""What is no method by itself: frames and side models that several methods share."""
