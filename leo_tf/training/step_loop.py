"""Runs many meta-steps in one call from the host, the hot loop of training.

Shapes: M metrics of a step.
"""

from collections.abc import Callable, Iterator

import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode


def make_run_steps(
    meta_step: Callable,
    seed: int,
    shape: tuple[int, int] | None = None,
) -> Callable:
    """Builds the function that runs many meta-steps in one call from the host.

    Args:
      meta_step: see `meta_step.make_meta_step`.
      seed: seed of all draws of the steps.
      shape: N and K, if they are not static in the iterator's episodes.

    Returns:
      A `tf.function` of an iterator over episodes, the number of the first step and
      the number of steps, int64 scalars. It returns sums of metrics over the finite
      steps. Metrics that begin with "non_finite" are summed over the other steps: their
      number, and in how many the support loss grew. "input_wait" is the total
      seconds from the end of a step, or the start of the call, to the arrival of the
      next episodes.
    """
    keys: list[str] = []  # names of the metrics, set when a step is traced

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
        return {**sums, "input_wait": waiting}

    return run_steps


def _of_shape(episode: Episode, way: int, shot: int) -> Episode:
    """Sets N and K in the static shapes. Other sizes are an error at run time."""
    support, query = [None, way, shot, None], [None, way, None, None]
    sizes = support, support[:3], query, query[:3]
    return Episode(*(tf.ensure_shape(*each) for each in zip(episode, sizes)))


def if_finite(metrics: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns [M] metrics of a step; all but "non_finite" zero if it is non-finite.

    They are float64, so that sums do not depend on the number of steps per call.
    """
    kept = [name.startswith("non_finite") for name in metrics]
    values = tf.stack([tf.cast(value, tf.float64) for value in metrics.values()])
    finite = metrics["non_finite"] == 0
    return tf.where(finite | tf.constant(kept), values, tf.zeros_like(values))


def next_timed(
    iterator: Iterator[Episode], previous: tf.Tensor
) -> tuple[Episode, tf.Tensor]:
    """Returns the next episodes, and the seconds between `previous` and their arrival.

    Episodes do not wait for `previous`, so they may arrive while the step still runs.
    """
    with tf.control_dependencies([previous]):
        ready = tf.timestamp()
    episode = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(episode)):
        arrived = tf.timestamp()
    return episode, tf.maximum(arrived - ready, 0.0)
