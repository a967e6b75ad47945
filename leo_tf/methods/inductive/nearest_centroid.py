"""Nearest centroid: each class is the mean of its examples, without training.

Shapes: B tasks in the meta-batch, N way, K shot, S examples of one uneven support set,
D embedding size, P = D, or D + 1 with a bias.
"""

import abc
from typing import Any

import tensorflow as tf

from leo_tf.model.learner import Adapted, Learner, UnevenAdapted, without_latents


class ClassMeans(Learner):
    """Base of methods whose classifier depends on class means only.

    A subclass defines `_classifier`: means [..., N, D] to classifiers [..., N, P].
    """

    runs_on_litert = True

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Returns `Adapted` with classifiers [B, N, P], from inputs [B, N, K, D]."""
        return Adapted(self._classifier(tf.reduce_mean(support_inputs, axis=2)))

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        """Does the same from support [S, D] with labels [S], by each class's mean."""
        means = tf.math.unsorted_segment_mean(support, labels, way)  # [N, D]
        return without_latents(self._classifier(means))

    @abc.abstractmethod
    def _classifier(self, means): ...


class NearestCentroid(ClassMeans):
    """Scores a query by its similarity to the mean of each class's support.

    Args:
      metric: "cosine", of a query with the mean; or "euclidean", minus their squared
        distance, less the squared length of the query, which is the same for all
        classes. As queries have length 1, they differ only where means differ in
        length.
      scale: factor of all scores; changes confidence, not answers.

    P is D + 1 if Euclidean, else D.

    Source: the baseline of Snell et al., 2017 (arXiv:1703.05175), on given features;
    its equation 8 is the linear form of the Euclidean metric.
    """

    def __init__(self, metric: str = "cosine", scale: float = 1.0):
        if metric not in ("cosine", "euclidean"):
            raise ValueError(f"`metric` must be cosine or euclidean, got {metric!r}.")
        self.metric, self.scale = metric, scale

    def _classifier(self, means):
        """Returns the classifier [..., N, P] of class means [..., N, D]."""
        if self.metric == "cosine":
            return self.scale * tf.math.l2_normalize(means, axis=-1)
        # -|x - c|^2 = 2 c.x - |c|^2 - |x|^2, and the last is equal for all classes.
        bias = -tf.reduce_sum(means**2, axis=-1, keepdims=True)
        return self.scale * tf.concat([2.0 * means, bias], axis=-1)
