"""BD-CSPN: class means rectified by confident queries.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds, R queries that join a class.
"""

import tensorflow as tf

from leo_tf.methods.query_aware.likeness import (
    COSINE_SCALE,
    class_means,
    cosine_similarities,
    largest,
    shifted,
)
from leo_tf.model.learner import QueryAware

_MOST_PSEUDO_LABELLED = 8  # Z: queries per class to learn from


class BDCSPN(QueryAware):
    """Nearest centroid by cosine, after both biases of the means are reduced.

    All queries are shifted so that their mean is the support's. Of the queries that
    nearest centroid assigns to a class, the 8 most similar join its support. Each
    example is weighted by softmax(10 * cosine) with the class's first mean.

    Args:
      scale: factor of all cosines; changes confidence, not answers.

    Source: Liu et al., 2020 (arXiv:1911.10713), equations 3 to 6, with Z and epsilon of
    its section 4.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] cosines with the rectified means, times scale."""
        means, queries = class_means(support, targets), shifted(queries, support)
        cosines = cosine_similarities(queries, means)  # [B, M, N]
        none = tf.constant(float("-inf"), cosines.dtype)
        mine = tf.where(largest(cosines) > 0, cosines, none)
        most = tf.minimum(_MOST_PSEUDO_LABELLED, tf.shape(queries)[1])
        found, rows = tf.math.top_k(tf.linalg.matrix_transpose(mine), most)  # [B, N, R]
        joined = tf.gather(queries, rows, batch_dims=1)  # [B, N, R, D]
        likeness = cosine_similarities(support, means)
        known = tf.where(targets > 0, likeness, none)  # [B, S, N]
        by_class = [tf.linalg.matrix_transpose(known), found]
        weights = tf.nn.softmax(COSINE_SCALE * tf.concat(by_class, axis=2))
        count = tf.shape(support)[1]
        rectified = tf.matmul(weights[..., :count], support)  # [B, N, D]
        rectified += tf.einsum("bnr,bnrd->bnd", weights[..., count:], joined)
        return self.scale * cosine_similarities(queries, rectified)
