"""Scores all queries of many episodes without gathering the queries.

In the published test an episode's queries are all the other examples of its classes:
3,000 embeddings, of which neighbouring episodes share most. So a batch of episodes is
scored class by class: the class's embeddings times all the classifiers that ask for
them, one product.

Shapes: B episodes, N way, Q queries per class, D embedding size, P numbers of a class
in a classifier, C classes of the table, R rows of one class, m pairs of one class: each
the number of an episode and of the place that the class has in it.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.episode import EpisodeRows
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.model.learner import Learner


class ClassRows(NamedTuple):
    """A table, and the rows of each class, as tensors for lookups in a graph."""

    table: FeatureTable
    rows: tf.Tensor  # [rows] int32, ordered by class
    starts: tf.Tensor  # [C + 1] int32, where in `rows` each class begins, the last ends
    rank: tf.Tensor  # [rows] int32, the place of each row among those of its class

    @classmethod
    def of(cls, table: FeatureTable) -> "ClassRows":
        rows, sizes = table.index.rows, table.index.class_sizes
        starts = np.concatenate([[0], np.cumsum(sizes)])
        rank = np.empty_like(rows)
        rank[rows] = np.arange(len(rows)) - np.repeat(starts[:-1], sizes)
        lookups = (tf.constant(x, tf.int32) for x in (rows, starts, rank))
        return cls(table, *lookups)


def query_scores(
    learner: Learner, classifier: tf.Tensor, rows: EpisodeRows, by_class: ClassRows
) -> tf.Tensor:
    """Returns [B, N, Q, N] scores of queries by their classifiers [B, N, P]."""
    way, num_query = rows.query.shape[1:]
    pairs = tf.reshape(rows.classes, [-1])  # [B * N]
    order = tf.argsort(pairs, stable=True)  # groups the pairs of a class
    present, _, counts = tf.unique_with_counts(tf.gather(pairs, order))
    ends = tf.cumsum(counts)
    rank = tf.reshape(tf.gather(by_class.rank, rows.query), [-1, num_query])

    def score_class(i, scores):
        mine = order[ends[i] - counts[i] : ends[i]]  # [m]
        start, end = by_class.starts[present[i]], by_class.starts[present[i] + 1]
        inputs = by_class.table.lookup(by_class.rows[start:end])  # [R, D]
        asked = tf.gather(classifier, mine // way)  # [m, N, P]
        given = learner.logits(asked, inputs[tf.newaxis])  # [m, R, N]
        queries = tf.gather(rank, mine)  # [m, Q]
        return i + 1, scores.scatter(mine, tf.gather(given, queries, batch_dims=1))

    shape = [num_query, way]
    scores = tf.TensorArray(classifier.dtype, tf.size(pairs), element_shape=shape)
    _, scores = tf.while_loop(
        lambda i, _: i < tf.size(present), score_class, (0, scores)
    )
    return tf.reshape(scores.stack(), [-1, way, num_query, way])
