"""Soft k-means: class means refined by soft assignments of the queries.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds.
"""

import tensorflow as tf

from leo_tf.methods.query_aware.likeness import class_means, squared_distances
from leo_tf.model.learner import QueryAware


class SoftKMeans(QueryAware):
    """Class means refined once by soft assignments of the queries.

    A query's weight for a class is softmax(-sharpness * squared distance). It counts in
    the refined mean with this weight.

    Args:
      sharpness: factor of squared distances in the assignments.
      scale: factor of all scores; changes confidence, not answers.

    Source: Ren et al., 2018 (arXiv:1803.00676), equation 3, one step as there; its
    features are trained for a sharpness of 1, and of any length.
    """

    def __init__(self, sharpness: float, scale: float = 1.0):
        self.sharpness, self.scale = sharpness, scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] minus squared distances to refined means, times scale."""
        distances = squared_distances(queries, class_means(support, targets))
        shares = tf.nn.softmax(-self.sharpness * distances)  # [B, M, N]
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        refined = class_means(examples, tf.concat([targets, shares], axis=1))
        return -self.scale * squared_distances(queries, refined)
