"""A short training run that compares settings. It writes nothing."""

from collections.abc import Mapping

import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.methods.registry import build
from leo_tf.methods.transforms import Transform
from leo_tf.training.interrupts import StopRequest
from leo_tf.training.meta_step import adam
from leo_tf.training.replicas import Replicas, make_steps

_STEPS_PER_CALL = 50


def accuracy_after(
    steps: int,
    config: Config,
    splits: Mapping[str, Split],
    transform: Transform,
    line: ProgressLine,
    jit: bool = False,
) -> float:
    """Trains a method from the start, then returns its mean validation accuracy.

    Args:
      steps: number of training steps.
      config, splits: as for `train_run`. Replicas are not used.
      transform: fitted transform of the features.
      line: progress, advanced by each step.
      jit: compile the steps with XLA.

    Raises:
      Stopped: if a signal was received.
    """
    learner = build(config, splits["train"].embedding_size, transform)
    optimizer = adam(config.optimizer.outer_lr)
    run_steps = make_steps(Replicas(), learner, optimizer, config, jit)
    iterator, step = iter(dataset.training_episodes(config, splits["train"], 0)), 0
    with StopRequest() as request:
        while step < steps:
            most = min(_STEPS_PER_CALL, steps - step)
            count = dataset.steps_alike(config, step, most)
            first, number = (tf.constant(n, tf.int64) for n in (step, count))
            float(run_steps(iterator, first, number)["loss"])  # waits
            step += count
            line.advance(count)
            request.check()
        val, count = splits["val"], config.run.num_val_episodes
        episodes = dataset.evaluation_episodes(config, val, count)
        scores = evaluate({"": learner}, episodes, request.check)[""]
    return float(scores.accuracy.mean(dtype="float64"))
