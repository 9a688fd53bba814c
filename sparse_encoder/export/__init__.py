"""Models as ONNX graphs. Knows nothing of training."""
