"""What meta-steps tell of themselves, at next to no cost: numbers for TensorBoard."""

from collections.abc import Sequence

import tensorflow as tf

from data_pipeline.episode import Episode

# Relative: what clipping leaves as it is may come out this much smaller.
_ROUNDING = 1e-5


def clipping(
    names: Sequence[str],
    gradients: Sequence[tf.Tensor],
    clipped: Sequence[tf.Tensor],
    value: float,
    norm: float,
) -> dict[str, tf.Tensor]:
    """What `clip_gradients` did to each variable's gradient.

    Args:
      names: of the variables.
      gradients: before it, one for each.
      clipped: after it.
      value: the threshold of entries, 0 for none.
      norm: the threshold of norms, 0 for none.

    Returns:
      "gradient_norm/NAME", "clipped_norm/NAME", and "clipped_share/NAME", which is 1
      if clipping took anything from it, else 0: [] each.
    """
    # Then a gradient with an entry beyond `value` ends at `norm`, too.
    is_known = norm and (not value or norm <= value)
    metrics = {}
    for name, gradient, rest in zip(names, gradients, clipped, strict=True):
        before = _length(gradient)
        after = tf.minimum(before, norm) if is_known else _length(rest)
        # Rounding takes a little from a gradient that is not clipped.
        is_clipped = after < (1 - _ROUNDING) * before
        metrics[f"gradient_norm/{name}"] = before
        metrics[f"clipped_norm/{name}"] = after
        metrics[f"clipped_share/{name}"] = tf.cast(is_clipped, before.dtype)
    return metrics


def _length(tensor: tf.Tensor) -> tf.Tensor:
    """Euclidean norm. As a product: XLA adds up a sum over all entries one by one."""
    rows = tf.reshape(tensor, [-1, tensor.shape[-1]])
    sums = tf.linalg.matvec(rows * rows, tf.ones_like(rows[0]))
    return tf.sqrt(tf.reduce_sum(sums))


def if_finite(metrics: dict[str, tf.Tensor]) -> tf.Tensor:
    """[M] metrics of a step, all zero if it was not finite, but "non_finite".

    In float64, so that sums do not depend on how many steps one call makes.
    """
    kept = [name == "non_finite" for name in metrics]
    values = tf.stack([tf.cast(value, tf.float64) for value in metrics.values()])
    finite = metrics["non_finite"] == 0
    return tf.where(finite | tf.constant(kept), values, tf.zeros_like(values))


def next_timed(iterator, previous: tf.Tensor) -> tuple[Episode, tf.Tensor]:
    """The next episodes, and the seconds they came after `previous` was there.

    The episodes themselves do not wait for `previous`: they may be taken while the step
    before is still running, and then there was no time to wait.
    """
    with tf.control_dependencies([previous]):
        ready = tf.timestamp()
    episode = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(episode)):
        arrived = tf.timestamp()
    return episode, tf.maximum(arrived - ready, 0.0)
