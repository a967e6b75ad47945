"""Exports of a small run, and requests to them.

Shapes: S support examples, M queries, N way, D embedding size.
"""

import pathlib

import numpy as np
import tensorflow as tf

from leo_tf.methods.registry import build
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.run import load_run
from leo_tf.runs.variables import restore_variables

D = 8  # of the run of the fixture `trained`
SHAPES = [(2, 1), (3, 2), (7, 4)]  # way, shot


def export(workdir, export_dir, *flags) -> int:
    """Exports a run directory in this process; returns the exit status."""
    from leo_tf.cli.main import main

    required = ["--mode=export", f"--workdir={workdir}", f"--export_dir={export_dir}"]
    return main(["run_leo.py", *required, *flags])


def make_request(way=3, shot=2, queries=4, seed=0) -> dict[str, np.ndarray]:
    """Support, labels and queries around a centre for each class, of any length."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(way), shot)
    centres = rng.normal(size=[way, D])
    support = centres[labels] + 0.5 * rng.normal(size=[way * shot, D])
    return {
        "support": support.astype(np.float32),
        "labels": labels.astype(np.int64),
        "queries": rng.normal(size=[queries, D]).astype(np.float32),
    }


def best_learner(workdir: pathlib.Path):
    """The method of a run with the variables of its best checkpoint."""
    best = Checkpoints(workdir).best()
    learner = build(RunDirectory(workdir).config(), D)
    restore_variables(best.path, {v.path: v.value for v in learner.trainable_variables})
    return learner


def temperature_of(workdir: pathlib.Path) -> float:
    """Returns the temperature that an export of a run divides logits by."""
    run = load_run(workdir)
    return run.confidence(run.checkpoints.best()).temperature


def training_answers(
    learner, way: int, shot: int, request, temperature: float = 1.0
) -> dict[str, np.ndarray]:
    """Classifier and logits as the training code computes them, from unit rows."""
    support, queries = (
        tf.constant(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        for rows in (request["support"], request["queries"])
    )
    adapted = learner.adapt(
        tf.reshape(support, [1, way, shot, D]),
        tf.reshape(request["labels"], [1, way, shot]),
    )
    logits = learner.logits(adapted.classifier, queries[tf.newaxis])
    return {
        "classifier": adapted.classifier[0].numpy(),
        "logits": logits[0].numpy() / temperature,
    }


def tensors(request) -> dict[str, tf.Tensor]:
    """The request as a signature of a SavedModel takes it."""
    dtypes = {"labels": tf.int64}
    return {k: tf.constant(v, dtypes.get(k, tf.float32)) for k, v in request.items()}


def part(request, *fields) -> dict:
    """Some fields of a request."""
    return {field: request[field] for field in fields}
