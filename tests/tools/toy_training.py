"""Training of a learner of one kernel: real, yet compiled in a blink."""

import functools
import math
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import FeatureTable, episodes, mixed_episodes
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.model.learner import Adapted, class_scores
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.training.meta_step import adam
from leo_tf.training.trainer import Trainer

SIZE, NEVER = 5, -1


class Projection(keras.layers.Layer):
    """Noisy class means behind a learned map; its noise is NaN at `broken_steps`."""

    def __init__(self, broken_steps=(NEVER,)):
        super().__init__(name="projection")
        self.broken_steps = broken_steps
        self.kernel = self.add_weight(
            name="kernel",
            shape=[SIZE, SIZE],
            initializer=keras.initializers.GlorotUniform(seed=1),
        )

    @property
    def kernels(self):
        return [self.kernel]

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        classifier = tf.reduce_mean(support_inputs, axis=2) @ self.kernel.value
        if training:
            classifier += noise
        return Adapted(classifier, {}, {"size": tf.norm(classifier)})

    def logits(self, classifier, inputs, training=False, noise=None):
        return class_scores(classifier, inputs)

    def draw_noise(self, episode, seed, step):
        noise = tf.random.stateless_normal([SIZE], tf.stack([seed, step]), stddev=0.1)
        broken = tf.reduce_any(step == tf.constant(self.broken_steps, tf.int64))
        return tf.where(broken, math.nan, noise)


class Line(ProgressLine):
    """A quiet line that remembers, and does something when `step` steps are done."""

    def __init__(self, step=NEVER, action=None):
        super().__init__("train", 100, quiet=True)
        self.step, self.action, self.details, self.notes = step, action, [], []

    def advance(self, units, details=""):
        super().advance(units, details)
        self.details.append(details)
        if self.done == self.step:
            self.action()

    def note(self, text):
        self.notes.append(text)

    warn = note


@functools.cache
def feature_table() -> FeatureTable:
    random = np.random.default_rng(0)
    features = random.normal(size=[40, SIZE]).astype(np.float32)
    labels, names = np.repeat(np.arange(4), 10), ("a", "b", "c", "d")
    return FeatureTable.from_embeddings(EmbeddingTable(features, labels, names))


@functools.cache
def training_episodes(start: int, shapes=((3, 2),)) -> tf.data.Dataset:
    """Endless meta-batches from a step on; each dataset is built once."""
    options = {"num_query": 4, "batch_size": 2, "seed": 0, "split": "train"}
    if len(shapes) > 1:
        return mixed_episodes(feature_table(), shapes=shapes, start=start, **options)
    [(way, shot)] = shapes
    return episodes(feature_table(), way=way, shot=shot, start=start, **options)


def make_trainer(
    workdir, accuracies=(), broken_steps=(NEVER,), validating=None, **settings
) -> Trainer:
    """A trainer of 12 steps, validated every 5; resumed if there is a checkpoint.

    Args:
      workdir: its run directory.
      accuracies: what its validations find, in turn; if none, what the kernel says.
      broken_steps: steps that are non-finite.
      validating: called with the step while it is validated.
      settings: of the configuration, instead of the defaults; way and shot count if
        they are ranges.
    """
    defaults = {"num_steps": 12, "validate_every": 5, "log_every": 3, "jit": "off"}
    config = Config().replace(outer_lr=0.1, **{**defaults, **settings})
    learner, planned = Projection(broken_steps), iter(accuracies)
    shapes = config.episodes.shapes
    mixed = functools.partial(training_episodes, shapes=shapes)

    def validate(on_batch):
        if validating:
            validating(trainer.state.step)
        on_batch(1)
        mean = float(tf.math.sigmoid(tf.reduce_sum(learner.kernel.value)))
        if accuracies:
            mean = next(planned)
        return EpisodeScores(np.array([mean, mean]), loss=1.0 - mean)

    trainer = Trainer(
        learner,
        adam(config.optimizer.outer_lr),
        config,
        episodes=training_episodes if len(shapes) == 1 else mixed,
        validate=validate,
        checkpoints=Checkpoints(workdir, keep=10),
        monitor=EventWriter(workdir / "events"),
        metadata={"data": "digest"},
    )
    newest = trainer.checkpoints.newest(pytest.fail)
    if newest:
        trainer.resume(newest)
    return trainer


def run(trainer: Trainer, line: Line | None = None) -> Trainer:
    """Trains to the end, or to where the line sends a signal."""
    line = line or Line()
    line.done = trainer.state.step
    with line:
        trainer.run(line)
    return trainer


def send(number: int):
    """An action for `Line`: the process gets a signal."""
    return lambda: os.kill(os.getpid(), number)
