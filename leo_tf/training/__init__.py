"""The outer loop: meta-step, trainer, replicas, workers."""
