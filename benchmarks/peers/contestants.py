"""The contestants: leo_tf, with and without its data pipeline, and its peers.

Each function takes the settings of a run and builds the function that makes a given
number of meta-steps and returns when they are done. All but one see the same meta-batch
in every step.
"""

import functools
import importlib.util
import itertools
import os
import shutil
from collections.abc import Callable

import numpy as np

from leo_tf.configs.schema import Config

_SEED = 0
_EMBEDDING_SIZE = 640
# The train split of miniImageNet, for the contestant that draws its episodes.
_CLASSES, _ROWS_PER_CLASS = 64, 600

Run = Callable[[int], None]


def synthetic_batch(config: Config, label_dtype: type) -> tuple[np.ndarray, ...]:
    """A meta-batch: support inputs and labels, query inputs and labels."""
    sizes, rng = config.episodes, np.random.default_rng(_SEED)
    shape = sizes.meta_batch_size, sizes.way, sizes.shot + sizes.num_query
    inputs = rng.random((*shape, _EMBEDDING_SIZE), dtype=np.float32)
    inputs /= np.linalg.norm(inputs, axis=-1, keepdims=True)
    labels = np.arange(sizes.way, dtype=label_dtype)[:, np.newaxis]
    labels = np.broadcast_to(labels, shape)
    (support, query), (support_labels, query_labels) = (
        np.split(array, [sizes.shot], axis=2) for array in (inputs, labels)
    )
    return support, support_labels, query, query_labels


def _leo_tf_step(config: Config) -> Callable:
    from leo_tf.model.leo import LEO
    from leo_tf.training.meta_step import adam, make_meta_step

    leo = LEO(config.model, _SEED)
    leo.build([None, config.episodes.way, config.episodes.shot, _EMBEDDING_SIZE])
    return make_meta_step(
        leo,
        adam(config.optimizer.outer_lr),
        gradient_threshold=config.optimizer.gradient_threshold,
        gradient_norm_threshold=config.optimizer.gradient_norm_threshold,
        jit=True,
    )


def leo_tf(config: Config) -> Run:
    import tensorflow as tf

    from leo_tf.data_pipeline.episode import Episode

    meta_step, numbers = _leo_tf_step(config), itertools.count()
    episode = Episode(*map(tf.constant, synthetic_batch(config, np.int32)))
    seed = tf.constant(_SEED, tf.int64)

    def run(count: int) -> None:
        for step in itertools.islice(numbers, count):
            metrics = meta_step(episode, seed, tf.constant(step, tf.int64))
        float(metrics["loss"])

    return run


def leo_tf_with_data(config: Config) -> Run:
    """Runs steps as the trainer does: new episodes each step, many steps per call."""
    import tensorflow as tf

    from benchmarks.synthetic import feature_table
    from leo_tf.data_pipeline.pipeline import episodes
    from leo_tf.training.step_loop import make_run_steps

    sizes = config.episodes
    dataset = episodes(
        feature_table(_CLASSES, _ROWS_PER_CLASS, _EMBEDDING_SIZE),
        way=sizes.way,
        shot=sizes.shot,
        num_query=sizes.num_query,
        batch_size=sizes.meta_batch_size,
        seed=_SEED,
        split="train",
    )
    iterator, run_steps = iter(dataset), make_run_steps(_leo_tf_step(config), _SEED)
    number, done = functools.partial(tf.constant, dtype=tf.int64), 0

    def run(count: int) -> None:
        nonlocal done
        float(run_steps(iterator, number(done), number(count))["loss"])
        done += count

    return run


def plain_jax(config: Config) -> Run:
    import jax

    from benchmarks.peers import leo_jax

    batch = jax.device_put(leo_jax.Task(*synthetic_batch(config, np.int32)))
    key = jax.random.key(_SEED)
    params = leo_jax.init_params(key, _EMBEDDING_SIZE, config.model)
    state = leo_jax.adam(config).init(params)
    step, numbers = leo_jax.make_step(config), itertools.count()

    def run(count: int) -> None:
        nonlocal params, state
        for number in itertools.islice(numbers, count):
            step_key = jax.random.fold_in(key, number)
            params, state, _ = step(params, state, batch, step_key)
        jax.block_until_ready(params)

    return run


def plain_torch(config: Config, compiled: bool = False) -> Run:
    import torch

    from benchmarks.peers import leo_torch

    torch.manual_seed(_SEED)
    batch = leo_torch.Task(*map(torch.tensor, synthetic_batch(config, np.int64)))
    params = leo_torch.init_params(_EMBEDDING_SIZE, config.model)
    step = leo_torch.make_step(params, config, compiled)

    def run(count: int) -> None:
        for _ in range(count):
            # Outside of what is compiled: there the generator is slower.
            step(batch, leo_torch.draw(batch, config.model))

    return run


CONTESTANTS = {
    "leo_tf": leo_tf,
    "leo_tf with data": leo_tf_with_data,
    "JAX": plain_jax,
    "PyTorch": plain_torch,
    "PyTorch compiled": functools.partial(plain_torch, compiled=True),
}
_NEEDS = {
    "JAX": ("jax", "optax"),
    "PyTorch": ("torch",),
    "PyTorch compiled": ("torch",),
}


def lack_of(name: str) -> str | None:
    """Returns what a contestant lacks to take part; None if nothing."""
    packages = _NEEDS.get(name, ())
    absent = [p for p in packages if importlib.util.find_spec(p) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if "compiled" in name and not shutil.which(os.environ.get("CXX", "g++")):
        return "no C++ compiler"
    return None
