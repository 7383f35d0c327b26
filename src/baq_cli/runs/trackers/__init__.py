"""Following a run in TensorBoard, Weights & Biases or MLflow."""
