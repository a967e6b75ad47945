"""Measures the CPU time that TensorBoard adds to training.

    python benchmarks/monitoring_cost.py

Two kinds of training of the embedded data take turns, A B A B, several of each, each in
a process of its own: one shows everything, one computes the loss and shows nothing.
Saving, which both would do alike, is left out. Looks at pictures and latents are few,
and timed by themselves. The target: below 3 % of a run of the preset, all together.
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from benchmarks.in_turn import Contestant, measure_in_turn, spread
from leo_tf.configs.presets import PRESETS
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.evaluation.evaluate import collect, make_scorer
from leo_tf.methods.registry import build
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.validation import ValidationMonitor
from leo_tf.training.meta_step import (
    adam,
    clip_gradients,
    is_finite,
    meta_gradients,
    replace_non_finite,
)
from leo_tf.training.trainer import Trainer

_ENDLESS = 2**31 - 1
# Steps up to a validation: twice as many validations as the preset has.
_UNIT = 250


class NoCheckpoints:
    """Stands in for `Checkpoints`, and writes nothing."""

    def __getattr__(self, name):
        return lambda *unused: None


class NothingShown:
    """Stands in for `TrainingMonitor`, and writes nothing."""

    def __getattr__(self, name):
        return lambda *unused: None


def bare_steps(learner, optimizer, config):
    """Stands in for `run_steps`: computes only what training itself needs."""
    thresholds = config.gradient_threshold, config.gradient_norm_threshold
    optimizer.build(learner.trainable_variables)

    @tf.function(jit_compile=True, autograph=False)
    def update(episode, noise):
        loss, gradients, metrics = meta_gradients(learner, episode, noise)
        finite = is_finite(loss, gradients)
        mended = replace_non_finite(finite, gradients, learner)
        optimizer.apply(
            clip_gradients(mended, *thresholds), learner.trainable_variables
        )
        broken = 1.0 - tf.cast(finite, tf.float32)
        return tf.cast(tf.stack([loss, metrics["accuracy"], broken]), tf.float64)

    @tf.function
    def run_steps(iterator, first, count):
        seed, totals = tf.constant(0, tf.int64), tf.zeros([3], tf.float64)
        for step in tf.range(first, first + count):
            episode = next(iterator)
            totals += update(episode, learner.draw_noise(episode, seed, step))
        names = "loss", "accuracy", "non_finite"
        sums = dict(zip(names, tf.unstack(totals)))
        return {**sums, "input_wait": tf.zeros([])}

    return run_steps


def make_trainer(is_shown: bool) -> Trainer:
    """A trainer of the preset, without checkpoints."""
    config = PRESETS["glyphs"].config().replace(num_steps=_ENDLESS, jit="on")
    splits = datasets.load(config, ["train", "val"])
    learner = build(config, splits["val"].embedding_size)
    optimizer = adam(config.optimizer.outer_lr)
    count = config.run.num_val_episodes
    validation = datasets.evaluation_episodes(config, splits["val"], count)
    scorer = make_scorer({"method": learner}, validation.table)
    monitor = EventWriter(tempfile.mkdtemp())
    look = ValidationMonitor(monitor, learner, config, splits["val"], baseline=0.66)
    trainer = Trainer(
        learner,
        optimizer,
        config,
        episodes=functools.partial(datasets.training_episodes, config, splits["train"]),
        validate=lambda check: collect(scorer, validation.rows, check)["method"],
        checkpoints=NoCheckpoints(),
        monitor=monitor,
        metadata={},
        show_more=look.show if is_shown else lambda step, is_last: None,
    )
    if not is_shown:
        trainer.shown = NothingShown()
        trainer._run_steps = bare_steps(learner, optimizer, config.optimizer)
    return trainer


def make(is_shown: bool):
    """A function that trains for so many units, without looks at pictures."""
    trainer = make_trainer(is_shown)
    trainer.show_more = lambda step, is_last: None
    return functools.partial(train, trainer)


def train(trainer: Trainer, units: int) -> None:
    until = trainer.state.step + units * _UNIT
    # Its last step is a validation, and every one of it a multiple of 100 is shown.
    trainer.config = trainer.config.replace(num_steps=until)
    with ProgressLine("train", until, quiet=True) as line:
        trainer.run(line)


def time_looks() -> list[float]:
    """Returns CPU seconds of the first two looks at pictures and latents."""
    trainer, seconds = make_trainer(is_shown=True), []
    for step in (500, 1000):
        start = time.process_time()
        trainer.show_more(step, False)
        seconds.append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each process")
    parser.add_argument("--processes", type=int, default=3, help="of each kind")
    args = parser.parse_args()
    kinds = [is_shown for _ in range(args.processes) for is_shown in (True, False)]
    contestants = [Contestant(make, (kind,), seconds=0.0) for kind in kinds]
    measure_in_turn(contestants, args.rounds)
    shown, silent = (
        [t.cpu for c in contestants[start::2] for t in c.timings] for start in (0, 1)
    )
    first, later = time_looks()
    run = PRESETS["glyphs"].config().run
    validations = run.num_steps // run.validate_every
    looks = first + int(np.log2(validations)) * later
    steps = np.median(shown) - np.median(silent)
    whole = run.num_steps / _UNIT * np.median(silent)
    print(f"CPU seconds of {_UNIT} steps and a validation")
    print(f"  shown {spread(shown, 2)}, not shown {spread(silent, 2)}")
    print(f"CPU seconds of the first look {first:.2f}, of a later one {later:.2f}")
    cost = run.num_steps / _UNIT * steps + looks
    print(f"of {run.num_steps} steps: {100 * cost / whole:.1f} % of {whole:.0f} s")


if __name__ == "__main__":
    main()
