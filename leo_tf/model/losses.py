"""Losses and regularisers of LEO (Rusu et al., 2019, arXiv:1807.05960).

Shapes: B tasks, N way, K shot, Z latent size; "..." is any number of axes.
"""

from collections.abc import Sequence

import tensorflow as tf

# Below this sum of squares a decoder row counts as zero, and its cosines as 0. The
# release adds 1e-32 to the product of norms, which underflows to 0 / 0 in float32.
_SQUARED_NORM_FLOOR = 1e-24


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[...] softmax cross-entropy in nats of logits [..., N] and labels [...]."""
    target = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)  # [..., N]
    return -tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1)


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[B] share of right answers of logits [B, ..., N] to labels [B, ...].

    NaN is no right answer.
    """
    right = tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels
    # Of NaNs argmax takes the first, which would be right for one class in N.
    right &= ~tf.reduce_any(tf.math.is_nan(logits), axis=-1)
    right = tf.reshape(right, [tf.shape(right)[0], -1])
    return tf.reduce_mean(tf.cast(right, logits.dtype), axis=1)


def encoder_penalty(adapted: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """[B] mean squared difference, unweighted (the caller multiplies by gamma).

    Pulls the encoder towards the latents [B, N, K, Z] that adaptation arrives at: a
    target, not trained.

    Source: arXiv:1807.05960, equation 6; the release's `model.py`.
    """
    difference = tf.math.squared_difference(tf.stop_gradient(adapted), start)
    return tf.reduce_mean(difference, axis=[1, 2, 3])


def orthogonality_penalty(kernel: tf.Tensor) -> tf.Tensor:
    """Mean squared distance between the rows' cosine similarities and identity.

    Zero when the rows of `kernel` are mutually orthogonal. LEO applies it to the
    decoder so that each latent direction moves the classifier differently.

    Args:
      kernel: [Z, P] float tensor; Z latent directions, P generated parameters.

    Returns:
      [] float tensor, unweighted (the caller multiplies by lambda_2).

    Raises:
      ValueError: if `kernel` is not a matrix.

    Source: arXiv:1807.05960, equation 7; `get_orthogonality_regularizer` in the
    release's `model.py`. It averages over all Z * Z entries, diagonal included, and
    so do we: the published lambda_2 values assume it.
    """
    if kernel.shape.rank != 2:
        raise ValueError(f"`kernel` must be [Z, P], got shape {kernel.shape}.")
    rows = tf.nn.l2_normalize(kernel, axis=1, epsilon=_SQUARED_NORM_FLOOR)  # [Z, P]
    cosines = tf.matmul(rows, rows, transpose_b=True)  # [Z, Z]
    identity = tf.eye(kernel.shape[0], dtype=kernel.dtype)
    return tf.reduce_mean(tf.math.squared_difference(cosines, identity))


def l2_penalty(kernels: Sequence[tf.Tensor]) -> tf.Tensor:
    """[] half the sum of the squares of all kernels; Keras's `L2(x)` has no half."""
    return tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
