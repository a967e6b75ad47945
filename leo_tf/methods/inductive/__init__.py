"""The arithmetic of methods that score each query alone, except LEO."""
