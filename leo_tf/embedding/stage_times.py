"""Estimates the time of the stages from pictures to an export.

The speeds of decoding, of a given backbone and of matrix products are measured on this
machine. The rest follows from constants.
"""

import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.images.decoding import decode, usual_workers
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.embedding.backbones import HOG, backbone_named
from leo_tf.embedding.pretraining import Recipe
from leo_tf.embedding.views import decoded_side
from leo_tf.embedding.wide_resnet import multiplications
from leo_tf.errors import InputError
from leo_tf.methods.variants import variant_named

_SIDE = 1024  # of the matrices
_SAMPLE = 64  # pictures
_CONVOLUTIONS = 0.4  # of the rate of large products, as measured with wrn_10_2
_BACKWARD = 3.0  # a training step in forward passes
# Seconds of a training step per task, class and support example, and per query; and the
# cost of a tested episode, in training steps of one task. Both for 640 dimensions and a
# machine whose matrix products make 100 thousand million operations per second.
_SUPPORT_SECONDS, _QUERY_SECONDS, _RATE = 1.1e-4, 2.8e-6, 1e11
_TESTED = 0.5
_USUAL_SIZE = 640
_STARTING = 15.0  # seconds of a trained method: compiling, checkpoints, its tables


def stage_seconds(
    pictures: Pictures,
    config: Config,
    methods: Sequence[str],
    *,
    recipe: Recipe | None = None,
    backbone: tuple[str | None, str | None, int | None] = (None, None, None),
    views: str | None = None,
) -> dict[str, float]:
    """Returns the estimated seconds of each stage: backbone, features, comparison.

    Args:
      methods: names of the compared methods.
      recipe: recipe of the backbone to train; None if one is given.
      backbone: name, weights and side of a given backbone.

    Raises:
      LeoError: if a backbone that is given cannot be loaded.
    """
    found, views = {}, views or "center"
    rate, crops = products_a_second(), 10 if views == "multiview" else 1
    if recipe is not None:
        operations = 2 * multiplications(recipe.depth, recipe.width, recipe.side)
        forward, size = operations / (_CONVOLUTIONS * rate), 64
        decoding = decoding_seconds(pictures, decoded_side(recipe.side, views))
        count, size = len(pictures.of_split("train")), size * recipe.width
        epochs = recipe.epochs * _BACKWARD * forward
        found["backbone"] = count * (decoding + epochs)
    else:
        forward, side, size = _answering(*backbone)
        decoding = decoding_seconds(pictures, decoded_side(side, views)) if side else 0
    found["features"] = len(pictures.items) * (decoding + crops * forward)
    found["comparison"] = _comparison_seconds(config, methods, size, rate)
    return found


def _answering(name, weights, side) -> tuple[float, int | None, int]:
    """Returns seconds per picture of a backbone, the side it takes, and D."""
    found = backbone_named(name or HOG, weights, side)
    if found.side is None:  # it reads files itself: only it knows
        return 0.0, None, _USUAL_SIZE
    zeros = np.zeros((_SAMPLE, found.side, found.side, 3), np.uint8)
    size = np.shape(found.embed(zeros))[-1]
    return _seconds_of(lambda: found.embed(zeros)) / _SAMPLE, found.side, size


def decoding_seconds(pictures: Pictures, side: int) -> float:
    """Returns seconds per picture of a sample, with all cores at work."""
    chosen = np.linspace(0, len(pictures.items) - 1, _SAMPLE).astype(int)
    half = _SAMPLE // 2
    bad: list[InputError] = []  # they are for the stage itself to refuse
    batches = decode(
        pictures, side, indices=chosen, bad=bad, workers=1, batch_size=half
    )
    if next(batches, None) is None:
        return 0.0
    taken = _seconds_of(lambda: list(batches))  # without the start of processes
    return taken / half / usual_workers()


def _comparison_seconds(config, methods, size, rate) -> float:
    """Returns seconds of all steps and tests, if no training ends early."""
    shape, run = config.episodes, config.run
    way, shot = (max(sizes) for sizes in zip(*shape.shapes))
    examples = shot * _SUPPORT_SECONDS + shape.num_query * _QUERY_SECONDS
    task = way * examples * size / _USUAL_SIZE * _RATE / rate
    test = run.num_test_episodes * _TESTED * task
    validations = run.num_steps // run.validate_every * run.num_val_episodes
    steps = run.num_steps * shape.meta_batch_size + validations * _TESTED
    trained = sum(variant_named(name).entry.is_trained for name in methods)
    return len(methods) * test + trained * (steps * task + _STARTING)


def products_a_second() -> float:
    """Returns the operations per second of large matrix products."""
    matrix = tf.random.normal([_SIDE, _SIDE])
    tf.matmul(matrix, matrix)
    seconds = _seconds_of(lambda: tf.matmul(matrix, matrix).numpy())
    return 2 * _SIDE**3 / seconds


def in_words(seconds: float) -> str:
    """Returns a duration in words: "about 4 min"."""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def _seconds_of(job) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began
