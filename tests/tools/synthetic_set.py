"""Features with directions that tell nothing of the class, louder than those that do.

A method that compares features as they are is lost in them; one that learns over tasks
which directions matter is not.

Shapes: C classes, R rows of each, D embedding size.
"""

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import FeatureTable

SIZE, SIGNAL, NUISANCE = 128, 12, 12
NUISANCE_SCALE, NOISE = 2.0, 0.3
CLASSES = {"train": 80, "test": 30}
ROWS = 60


def synthetic_set(seed: int = 0) -> dict[str, FeatureTable]:
    """Split -> rows of length 1: class centre + nuisance of the row + noise.

    Centres and nuisance are normal in orthogonal subspaces of 12 directions each, the
    nuisance of twice the scale; the noise is normal in all 128.
    """
    random = np.random.default_rng(seed)
    square = random.normal(size=[SIZE, SIGNAL + NUISANCE])
    directions = np.linalg.qr(square)[0].T  # [SIGNAL + NUISANCE, D], orthonormal
    return {
        split: _table(random, directions, classes) for split, classes in CLASSES.items()
    }


def _table(random, directions, classes) -> FeatureTable:
    centres = random.normal(size=[classes, 1, SIGNAL]) @ directions[:SIGNAL]
    nuisance = NUISANCE_SCALE * random.normal(size=[classes, ROWS, NUISANCE])
    rows = centres + nuisance @ directions[SIGNAL:]  # [C, R, D]
    rows += NOISE * random.normal(size=rows.shape)
    labels = np.repeat(np.arange(classes), ROWS)
    names = tuple(f"class {number}" for number in range(classes))
    rows = rows.reshape([-1, SIZE]).astype(np.float32)
    return FeatureTable.from_embeddings(EmbeddingTable(rows, labels, names))
