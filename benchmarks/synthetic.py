"""Makes random features for several benchmarks, and measures memory."""

import resource

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import FeatureTable


def feature_table(classes: int, rows: int, size: int) -> FeatureTable:
    """Returns a table of random features [classes * rows, size]."""
    shape = classes * rows, size
    table = EmbeddingTable(
        embeddings=np.random.default_rng(0).random(shape, dtype=np.float32),
        labels=np.repeat(np.arange(classes), rows),
        class_names=tuple(map(str, range(classes))),
        source="synthetic",
    )
    return FeatureTable.from_embeddings(table)


def peak_mebibytes() -> float:
    """Returns the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
