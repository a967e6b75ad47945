"""Nearest centroid: a class is the mean of its examples. Nothing is learned.

Shapes: B tasks in the meta-batch, N way, K shot, D embedding size.
"""

import tensorflow as tf

from leo_tf.learner import Adapted, class_scores


class NearestCentroid:
    """Scores a query by its cosine with the mean of each class's support, a `Learner`.

    Source: the baseline of Snell et al., 2017 (arXiv:1703.05175), on given features
    and with cosine similarity.
    """

    trainable_variables = ()
    kernels = ()

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        """`Adapted` with the classifier [B, N, D]: class means of length 1."""
        mean = tf.reduce_mean(support_inputs, axis=2)  # [B, N, D]
        return Adapted(tf.math.l2_normalize(mean, axis=-1), penalties={}, health={})

    def logits(self, classifier, inputs, training=False, noise=None):
        """[B, ..., N] cosines of inputs [B, ..., D], which have length 1."""
        return class_scores(classifier, inputs)

    def draw_noise(self, episode, seed, step):
        return None
