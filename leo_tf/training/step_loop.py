"""Many meta-steps in one call from the host: the loop that training spends its time in.

Shapes: M metrics of a step.
"""

from collections.abc import Callable, Iterator

import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode


def make_run_steps(
    meta_step: Callable,
    seed: int,
    watch: bool = False,
    shape: tuple[int, int] | None = None,
) -> Callable:
    """Builds the function that makes many meta-steps in one call from the host.

    Args:
      meta_step: see `meta_step.make_meta_step`.
      seed: of all that steps draw.
      watch: whether to measure how long steps wait for episodes.
      shape: N and K, if those of the iterator's episodes are not static.

    Returns:
      A `tf.function` of an iterator over episodes, the number of the first step and
      how many to make, int64 scalars. It returns metrics summed over the steps that
      were finite, and over those that were not what begins with "non_finite": their
      number, and in how many an inner loop went astray; if asked to `watch`,
      "input_wait", too: the seconds from the end of a step, or the beginning of the
      call, until the next episodes were there, summed.
    """
    keys: list[str] = []  # of the metrics, as soon as a step is traced

    @tf.function(autograph=False)
    def run_steps(iterator, first, count):
        number = tf.constant(seed, tf.int64)

        def make_step(step, previous):
            episode, waited = next_timed(iterator, previous)
            episode = episode if shape is None else _of_shape(episode, *shape)
            metrics = meta_step(episode, number, step)
            keys[:] = metrics
            return if_finite(metrics), waited

        def next_step(step, totals, waiting):
            more, waited = make_step(step, totals)
            return step + 1, totals + more, waiting + waited

        end, (totals, waiting) = first + count, make_step(first, first)
        _, totals, waiting = tf.while_loop(
            lambda step, *_: step < end, next_step, (first + 1, totals, waiting)
        )
        sums = dict(zip(keys, tf.unstack(totals)))
        return {**sums, "input_wait": waiting} if watch else sums

    return run_steps


def _of_shape(episode: Episode, way: int, shot: int) -> Episode:
    """With N and K in the static shapes; an error when it runs if they are others."""
    support, query = [None, way, shot, None], [None, way, None, None]
    sizes = support, support[:3], query, query[:3]
    return Episode(*(tf.ensure_shape(*each) for each in zip(episode, sizes)))


def if_finite(metrics: dict[str, tf.Tensor]) -> tf.Tensor:
    """[M] metrics of a step, zero if it was not finite, but for "non_finite".

    In float64, so that sums do not depend on how many steps one call makes.
    """
    kept = [name.startswith("non_finite") for name in metrics]
    values = tf.stack([tf.cast(value, tf.float64) for value in metrics.values()])
    finite = metrics["non_finite"] == 0
    return tf.where(finite | tf.constant(kept), values, tf.zeros_like(values))


def next_timed(
    iterator: Iterator[Episode], previous: tf.Tensor
) -> tuple[Episode, tf.Tensor]:
    """The next episodes, and the seconds they came after `previous` was there.

    They do not wait for it: taken while the step before still runs, they cost no time.
    """
    with tf.control_dependencies([previous]):
        ready = tf.timestamp()
    episode = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(episode)):
        arrived = tf.timestamp()
    return episode, tf.maximum(arrived - ready, 0.0)
