"""A short training run that compares settings. It writes nothing."""

import math
import time
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

# Target duration of a call of several steps, as in `trainer`.
_SECONDS_PER_CALL = 0.5


def accuracy_after(
    steps: int,
    config: Config,
    splits: Mapping[str, Split],
    transform: Transform,
    line: ProgressLine,
    replicas: Replicas,
    jit: bool = False,
) -> float:
    """Trains a method from the start, then returns its mean validation accuracy.

    Args:
      steps: number of training steps.
      config, splits: as for `train_run`.
      transform: fitted transform of the features.
      line: progress, advanced by each step.
      replicas: devices that train together.
      jit: compile the steps with XLA.

    Returns:
      The accuracy, 0 to 1; NaN if training diverged.

    Raises:
      Stopped: if a signal was received.
    """
    with replicas.scope():
        learner = build(config, splits["train"].embedding_size, transform)
        optimizer = adam(config.optimizer.outer_lr)
    run_steps = make_steps(replicas, learner, optimizer, config, jit)
    iterator = iter(dataset.training_episodes(config, splits["train"], 0))
    step, most, surplus = 0, 1, 0.0  # of non-finite steps, as in `Trainer`
    with StopRequest() as request:
        while step < steps:
            count = dataset.steps_alike(config, step, min(most, steps - step))
            first, number = (tf.constant(n, tf.int64) for n in (step, count))
            start = time.monotonic()
            metrics = run_steps(iterator, first, number)
            non_finite = float(metrics["non_finite"])  # waits
            most = max(1, round(_SECONDS_PER_CALL * count / (time.monotonic() - start)))
            step += count
            surplus = max(0.0, surplus + 2 * non_finite - count)
            line.advance(count)
            request.check()
            if surplus > config.run.non_finite_limit:
                return math.nan
        val, episodes = splits["val"], config.run.num_val_episodes
        batches = dataset.evaluation_episodes(config, val, episodes)
        scores = evaluate({"": learner}, batches, request.check)[""]
    return float(scores.accuracy.mean(dtype="float64"))
