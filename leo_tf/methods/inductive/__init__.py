"""The arithmetic of methods that answer each query by itself, but for LEO."""
