"""Class means and likenesses that transductive methods share.

Each method scores all tasks of a batch at once. Transforms that the papers apply first,
such as PT-MAP's power, are `--feature_power` and `--feature_transform` here.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds.
"""

import tensorflow as tf

# Factor of cosines before a softmax of them: epsilon of arXiv:1911.10713, section 4.
COSINE_SCALE = 10.0


def class_means(examples: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Returns [B, N, D] means of examples [B, E, D], weighted by shares [B, E, N]."""
    counts = tf.reduce_sum(shares, axis=1)[..., tf.newaxis]  # [B, N, 1]
    return tf.matmul(shares, examples, transpose_a=True) / counts


def squared_distances(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns [B, M, N] squared distances of rows [B, M, D] and [B, N, D]."""
    products = tf.matmul(rows, others, transpose_b=True)
    squares = tf.reduce_sum(others**2, axis=2)[:, tf.newaxis]  # [B, 1, N]
    return tf.reduce_sum(rows**2, axis=2, keepdims=True) + squares - 2.0 * products


def cosine_similarities(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns [B, M, N] cosines of rows [B, M, D] and others [B, N, D]."""
    rows, others = (tf.math.l2_normalize(x, axis=2) for x in (rows, others))
    return tf.matmul(rows, others, transpose_b=True)


def largest(scores: tf.Tensor) -> tf.Tensor:
    """Returns [B, M, N]: 1 at the largest score of each row, else 0."""
    return tf.one_hot(
        tf.argmax(scores, axis=2), tf.shape(scores)[2], dtype=scores.dtype
    )


def shifted(queries: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """Returns queries [B, M, D], moved so that their mean is the support's."""
    means = (tf.reduce_mean(x, axis=1, keepdims=True) for x in (support, queries))
    target, mine = means
    return queries + (target - mine)
