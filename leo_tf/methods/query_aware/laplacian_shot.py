"""LaplacianShot: assignments that neighbouring queries share.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds, R neighbours of a query.
"""

import tensorflow as tf

from leo_tf.methods.query_aware.likeness import (
    COSINE_SCALE,
    class_means,
    cosine_similarities,
    largest,
    shifted,
    squared_distances,
)
from leo_tf.model.learner import QueryAware

# Constants of the release. Its `knn` of 3 counts the query itself.
_NEIGHBOURS, _BOUND_STEPS = 2, 20


class LaplacianShot(QueryAware):
    """Assignments close to class means, and alike for neighbouring queries.

    Means are rectified first: queries are shifted to the support's mean, and each
    example is weighted by its softmax(10 * cosine) for the class that nearest centroid
    assigns it to.

    Args:
      weight: weight of the neighbours, lambda.
      scale: factor of all scores; changes confidence, not answers.

    Source: Ziko et al., 2020 (arXiv:2006.15486), equation 12, and `proto_rect` of the
    release. There the 20 steps end early where the energy has settled; and a class to
    which no example is assigned is lost, while here it keeps its mean.
    """

    def __init__(self, weight: float, scale: float = 1.0):
        self.weight, self.scale = weight, scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] log-assignments up to a constant, times scale."""
        queries = shifted(queries, support)
        rectified = self._rectified(support, targets, queries)
        unary = -squared_distances(queries, rectified)  # [B, M, N]
        neighbours = _neighbours(queries)  # [B, M, R]
        logits = unary
        for _ in range(_BOUND_STEPS):
            shares = tf.nn.softmax(logits)
            theirs = tf.gather(shares, neighbours, batch_dims=1)  # [B, M, R, N]
            logits = unary + self.weight * tf.reduce_sum(theirs, axis=2)
        return self.scale * logits

    def _rectified(self, support, targets, queries):
        means = class_means(support, targets)
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        cosines = cosine_similarities(examples, means)
        members = largest(cosines)  # [B, E, N]
        weights = members * tf.nn.softmax(COSINE_SCALE * cosines)
        counts = tf.reduce_sum(members, axis=1)[..., tf.newaxis]  # [B, N, 1]
        sums = tf.matmul(weights, examples, transpose_a=True)
        return tf.where(counts > 0, tf.math.divide_no_nan(sums, counts), means)


def _neighbours(queries):
    """Returns [B, M, R], the R nearest others of each query; R is at most 2."""
    likeness = -squared_distances(queries, queries)  # [B, M, M]
    none = tf.fill(tf.shape(likeness)[:2], tf.constant(float("-inf"), queries.dtype))
    most = tf.minimum(_NEIGHBOURS, tf.maximum(tf.shape(queries)[1] - 1, 0))
    return tf.math.top_k(tf.linalg.set_diag(likeness, none), most)[1]
