"""What a run shows of itself in TensorBoard."""
