"""Features in, episodes out. Nothing here imports TensorFlow until episodes flow."""

from data_pipeline.embeddings import EmbeddingTable
from data_pipeline.formats import load

__all__ = ["EmbeddingTable", "load"]
