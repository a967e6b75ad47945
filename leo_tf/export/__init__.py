"""Models to deploy: a trained method as a SavedModel or for LiteRT."""
