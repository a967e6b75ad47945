"""PT-MAP: class means moved by optimal transport of the queries.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds.
"""

import numpy as np
import tensorflow as tf

from leo_tf.methods.query_aware.likeness import class_means, squared_distances
from leo_tf.model.learner import QueryAware

# Lambda, alpha and epochs of the release's `test_standard.py`, and when Sinkhorn's
# iterations end: row sums change by no more than this, or at the last. The change is
# looked at once in so many iterations.
_TRANSPORT_SCALE, _CENTRE_RATE, _CENTRE_STEPS = 10.0, 0.2, 20
_TOLERANCE, _MOST_SINKHORN_STEPS, _BETWEEN_CHECKS = 1e-6, 1000, 5


class PTMAP(QueryAware):
    """Class centres that move towards the queries that optimal transport assigns.

    The transport assigns equally many queries to every class. If the queries are
    unbalanced, it is wrong by design. A single query gets no information.

    Args:
      scale: factor of all scores; changes confidence, not answers.

    Source: Hu et al., 2021 (arXiv:2006.03806), algorithm 1, with the numbers of the
    release and its `centerDatas`: support and queries each lose their own mean.
    Sinkhorn's iterations end for each task by itself, and after each fifth only.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] logarithms of the transport's shares, times scale."""
        support, queries = _centred(support), _centred(queries)
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        centres = class_means(support, targets)
        for _ in range(_CENTRE_STEPS):
            shares = tf.concat([targets, _transport(queries, centres)], axis=1)
            centres += _CENTRE_RATE * (class_means(examples, shares) - centres)
        plan = _transport(queries, centres)  # [B, M, N]
        smallest = np.finfo(plan.dtype.as_numpy_dtype).tiny
        return self.scale * tf.math.log(tf.maximum(plan, smallest))


@tf.function(autograph=False)  # eagerly it would take minutes
def _transport(queries, centres):
    """Returns [B, M, N] shares: rows sum to 1, and all columns to the same."""
    costs = _TRANSPORT_SCALE * squared_distances(queries, centres)
    least = tf.reduce_min(costs, axis=2, keepdims=True)  # leaves the plan unchanged
    kernel = tf.exp(least - costs)  # the plan is rows * kernel * columns
    each = tf.cast(tf.shape(costs)[1] / tf.shape(costs)[2], costs.dtype)

    def step(totals, moves):  # totals: sums of the kernel's rows times columns
        seen = [totals]
        for _ in range(_BETWEEN_CHECKS):
            columns = each / tf.matmul(kernel, 1.0 / seen[-1], transpose_a=True)
            seen.append(tf.matmul(kernel, columns))  # [B, M, 1]
        change = tf.abs(seen[-1] / seen[-2] - seen[-2] / seen[-3])  # of the row sums
        more = tf.reduce_max(change, axis=1, keepdims=True) > _TOLERANCE  # [B, 1, 1]
        return tf.where(moves, seen[-1], totals), moves & more

    totals = tf.reduce_sum(kernel, axis=2, keepdims=True)  # [B, M, 1]
    totals, _ = tf.while_loop(
        lambda totals, moves: tf.reduce_any(moves),
        step,
        (totals, tf.ones_like(totals[:, :1], tf.bool)),
        maximum_iterations=_MOST_SINKHORN_STEPS // _BETWEEN_CHECKS,
    )
    kernel /= totals
    return kernel * (each / tf.reduce_sum(kernel, axis=1, keepdims=True))


def _centred(rows):
    """Returns [B, M, D] minus their mean, scaled to length 1."""
    rows -= tf.reduce_mean(rows, axis=1, keepdims=True)
    return tf.math.l2_normalize(rows, axis=2)
