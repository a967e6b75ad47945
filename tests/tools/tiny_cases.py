"""A tiny LEO and tiny episodes. All sizes differ, so that a swapped axis fails.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import ModelConfig
from leo_tf.data_pipeline.episode import Episode
from leo_tf.methods.transforms import Transform
from leo_tf.model.leo import LEO

B, N, K, Q, D, Z = 6, 3, 2, 4, 7, 5
U, F = 3, 1
# Penalties weigh enough to be seen, and differ. Both inner loops move.
SETTINGS = {
    "num_latents": Z,
    "inner_unroll_length": U,
    "finetuning_unroll_length": F,
    "finetuning_lr_init": 0.5,
    "dropout_rate": 0.3,
    "kl_weight": 0.5,
    "encoder_penalty_weight": 0.2,
    "l2_penalty_weight": 0.03,
    "orthogonality_penalty_weight": 0.7,
}


def make_episode(
    seed=0, *, tasks=B, way=N, shot=K, num_query=Q, size=D, dtype="float64"
) -> Episode:
    """Examples of unit length, scattered around a centre for each class."""
    rng = np.random.default_rng(seed)
    examples = rng.normal(size=[tasks, way, shot + num_query, size])
    examples += 1.5 * rng.normal(size=[tasks, way, 1, size])
    examples /= np.linalg.norm(examples, axis=-1, keepdims=True)
    examples = examples.astype(dtype)
    labels = np.broadcast_to(
        np.arange(way, dtype=np.int32)[:, np.newaxis], examples.shape[:3]
    )
    arrays = (
        examples[:, :, :shot],
        labels[:, :, :shot],
        examples[:, :, shot:],
        labels[:, :, shot:],
    )
    return Episode(*(tf.constant(array) for array in arrays))


def training_classes(size=D, seed=0) -> Transform:
    """Features as they are, of 4 training classes with 5 rows for a covariance."""
    rng = np.random.default_rng(seed)
    centres, scatter = rng.normal(size=[4, size]), rng.normal(size=[4 * 5, size])
    mean, none = np.zeros(size), np.zeros([0, 0])
    return Transform(1.0, mean, none, 0.3 * centres, 0.1 * scatter)


def make_leo(dtype="float64", seed=0, size=D, **settings) -> LEO:
    """A built LEO whose learning rates differ from dimension to dimension.

    With a residual it is as after training: its decoder is no longer zero.
    """
    config = ModelConfig(**{**SETTINGS, **settings})
    leo = LEO(config, seed, dtype=dtype)
    leo.build([None, N, K, size])
    rng = np.random.default_rng(seed)
    for rates in (leo.inner_lr, leo.finetuning_lr):
        rates.assign(rates.numpy() * rng.uniform(0.5, 1.5, size=rates.shape))
    if config.residual != "none":
        shape = leo.decoder.kernel.shape
        leo.decoder.kernel.assign(rng.uniform(-0.5, 0.5, size=shape))
        for variable in leo.variables:
            if variable.name in ("log_scale", "log_strength"):
                variable.assign(0.5)
    return leo


def task_of(values, task: int):
    """One task, as a batch of one, of a (named) tuple of tensors of [B, ...]."""
    return tf.nest.map_structure(
        lambda value: None if value is None else value[task : task + 1], values
    )
