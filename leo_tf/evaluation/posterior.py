"""Averages predictions over posterior draws of z and w.

By default a test uses the means of LEO's latents and weights. The paper claims that
their distributions express the uncertainty of a task (arXiv:1807.05960, section 4.1).
Here a test draws them, adapts to each draw, and averages the probabilities.

Shapes: B tasks, N way, K shot, Q queries per class, D embedding size.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from leo_tf.model.learner import Adapted


class Draws(NamedTuple):
    """Number of draws of z and w to average over, and their seed."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    seed: int


def average(
    answer: Callable[[tf.Tensor], tuple[Adapted, tf.Tensor]], count: int
) -> tuple[Adapted, tf.Tensor]:
    """Averages the probabilities of answers over draws 0 to `count` - 1.

    Args:
      answer: number of a draw -> what adaptation gave, and logits [B, N, Q, N].
      count: number of draws.

    Returns:
      Means of the penalties, as an `Adapted` of the last draw's classifier; and the
      logarithms of the mean probabilities, which serve as logits.
    """
    adapted, logits = answer(tf.constant(0))
    log_sums = tf.nn.log_softmax(logits)

    def add(number, unused_classifier, penalties, log_sums):
        adapted, logits = answer(number)
        more = tf.nest.map_structure(tf.add, penalties, adapted.penalties)
        both = tf.stack([log_sums, tf.nn.log_softmax(logits)])
        return number + 1, adapted.classifier, more, tf.reduce_logsumexp(both, axis=0)

    state = (tf.constant(1), adapted.classifier, adapted.penalties, log_sums)
    _, classifier, penalties, log_sums = tf.while_loop(
        lambda number, *unused: number < count, add, state
    )
    means = tf.nest.map_structure(lambda total: total / count, penalties)
    log_shares = log_sums - tf.math.log(tf.cast(count, log_sums.dtype))
    return Adapted(classifier, means, diagnostics={}), log_shares
