"""A run directory: configuration, checkpoints, manifest, training state."""
