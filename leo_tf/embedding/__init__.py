"""Turns pictures and other items into features: backbones and pre-training."""
