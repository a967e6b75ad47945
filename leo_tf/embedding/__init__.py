"""Pictures and other items in, features out: backbones and their pre-training."""
