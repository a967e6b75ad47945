"""Closed forms of the support that LEO's decoded classifier may be added to.

Not in the paper, and off by default: `ModelConfig.residual`.

Shapes: B tasks in the meta-batch, S support examples of a task, N way, D embedding
size.
"""

import tensorflow as tf


def centroid(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """[B, N, D] class means of length 1: products with them are cosines.

    Args:
      inputs: [B, S, D].
      targets: [B, S, N], 1 for the class of an example, else 0.
    """
    sums = tf.matmul(targets, inputs, transpose_a=True)  # [B, N, D]
    return tf.math.l2_normalize(sums, axis=-1)


def ridge(inputs: tf.Tensor, targets: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """[B, N, D] least squares onto one-hot targets, without a bias.

    Minimises |Y - X W|^2 + strength * |W|^2 in its dual form, whose system has as many
    unknowns as there are examples.

    Args:
      inputs, targets: as for `centroid`.
      strength: [], above 0.

    Source: Bertinetto et al., 2019 (arXiv:1805.08136), equation 6.
    """
    gram = tf.matmul(inputs, inputs, transpose_b=True)  # [B, S, S]
    gram += strength * tf.eye(tf.shape(gram)[-1], dtype=gram.dtype)
    factors = tf.linalg.cholesky_solve(tf.linalg.cholesky(gram), targets)  # [B, S, N]
    return tf.matmul(factors, inputs, transpose_a=True)
