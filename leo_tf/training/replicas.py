"""Training on several devices at once: a meta-batch in equal parts, one update.

Every replica holds all variables, takes its own tasks of the same meta-batch and makes
the draws that one device would make for them. Gradients are averaged before the NaN
rule and before clipping, so the update is that of one device, up to the order of sums.

Shapes: B tasks in the meta-batch, R replicas.
"""

import contextlib
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.episode import Episode
from leo_tf.data_pipeline.sampler import drawn_shapes
from leo_tf.data_pipeline.sources import Data
from leo_tf.environment import versions
from leo_tf.errors import FlagError, check_not_forked, quoted
from leo_tf.methods.registry import build
from leo_tf.model.learner import Learner
from leo_tf.training import meta_step as alone
from leo_tf.training.interrupts import StopRequest
from leo_tf.training.step_loop import make_run_steps
from leo_tf.training.workers import VARIABLE, Workers, read_cluster

# Each is created once per process. A second one would reuse the keys of the first
# one's exchanges.
_mirrored_strategy = functools.cache(tf.distribute.MirroredStrategy)
_multi_worker_strategy = functools.cache(tf.distribute.MultiWorkerMirroredStrategy)


class Replicas:
    """The devices that train together, of this process and of other workers.

    Without a strategy of `tf.distribute`, `count` is 1: the device TensorFlow picks.
    """

    def __init__(self, strategy: Any = None, workers: Workers | None = None):
        self.strategy, self.workers = strategy, workers or Workers()
        self.count = strategy.num_replicas_in_sync if strategy else 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns a context manager that creates variables on every replica."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def mean_of_parts(
        self, function: Callable, episode: Episode, *arguments: Any
    ) -> list[tf.Tensor]:
        """Returns the means over the replicas of results for their own tasks.

        Args:
          function: (tasks of `episode`, number of the first, *arguments) -> list of
            tensors of static shapes and one dtype.
          episode: B tasks. B is static, and a multiple of R.
        """

        def on_replica(episode, *arguments):
            context = tf.distribute.get_replica_context()
            number = context.replica_id_in_sync_group
            tasks = episode.support_inputs.shape[0] // self.count
            with tf.device("CPU:0"):  # holds the episode: no device gets all of it
                part = tf.nest.map_structure(
                    lambda x: tf.reshape(x, [self.count, tasks, *x.shape[1:]])[number],
                    episode,
                )
            values = function(part, number * tasks, *arguments)
            # One exchange for all of them.
            flat = tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)
            mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, flat)
            parts = tf.split(mean, [value.shape.num_elements() for value in values])
            return [tf.reshape(p, value.shape) for p, value in zip(parts, values)]

        means = self.strategy.run(on_replica, args=(episode, *arguments))
        return [self.strategy.experimental_local_results(mean)[0] for mean in means]

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[Any],
    ) -> None:
        """Updates the variables on every replica with averaged gradients.

        `optimizer.apply` would sum them over the replicas again.
        """
        rate = tf.convert_to_tensor(optimizer.learning_rate)

        def update(variable, gradient):
            optimizer.update_step(gradient, variable, rate)

        with self.scope():
            for gradient, variable in zip(gradients, variables, strict=True):
                self.strategy.extended.update(
                    variable.value, update, args=(gradient,), group=False
                )
            optimizer.iterations.assign_add(1)


def start(config: Config, say: Callable[[str], None]) -> Replicas:
    """Returns the replicas of `--strategy`. Call it before any TensorFlow operation.

    It waits until all other workers have started, if there are any. `say` shows a line
    to the user.

    Raises:
      FlagError: if TF_CONFIG is missing or wrong, or the meta-batch cannot be split.
    """
    check_not_forked()
    if config.run.strategy == "none":
        return Replicas()
    replicas = mirrored(say) if config.run.strategy == "mirrored" else _workers(say)
    tasks = config.episodes.meta_batch_size
    if tasks % replicas.count:
        expected = f"a multiple of {replicas.count}, the number of replicas"
        raise FlagError("--meta_batch_size", expected, str(tasks))
    if replicas.workers.is_chief:
        say(f"Replicas: {replicas.count}, with {tasks // replicas.count} tasks each.")
    return replicas


def mirrored(say: Callable[[str], None]) -> Replicas:
    """Returns replicas on all GPUs, or on all logical CPU devices, usually one."""
    devices = tf.config.list_logical_devices("GPU")
    if not devices:
        say("There is no GPU: --strategy=mirrored makes nothing faster.")
        devices = tf.config.list_logical_devices("CPU")
    return Replicas(_mirrored_strategy(tuple(device.name for device in devices)))


def make_meta_step(
    replicas: Replicas,
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    *,
    jit: bool = False,
    **thresholds: float,
) -> Callable[[Episode, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Builds `meta_step.make_meta_step` for all replicas.

    Args:
      replicas: replicas in whose scope learner and optimizer were created.
      learner, optimizer, thresholds: see `meta_step.make_update`.
      jit: compile with XLA. With several replicas, only the gradients are compiled,
        because compiled code cannot exchange data.
    """
    if replicas.strategy is None:
        return alone.make_meta_step(learner, optimizer, jit=jit, **thresholds)
    with replicas.scope():
        options: Any = {"apply": replicas.apply, **thresholds}
        update = alone.make_update(learner, optimizer, **options)
    keys: list[str] = []  # names of the metrics, set when they are traced

    @tf.function(jit_compile=jit, autograph=False)
    def gradients_of(part, noise):
        return alone.meta_gradients(learner, part, noise)

    def on_part(part, first_task, seed, step):
        noise = learner.draw_noise(part, seed, step, first_task)
        loss, gradients, metrics = gradients_of(part, noise)
        keys[:] = metrics
        return [loss, *(tf.cast(x, loss.dtype) for x in metrics.values()), *gradients]

    @tf.function(autograph=False)
    def meta_step(episode: Episode, seed: tf.Tensor, step: tf.Tensor):
        loss, *means = replicas.mean_of_parts(on_part, episode, seed, step)
        metrics, gradients = dict(zip(keys, means)), means[len(keys) :]
        metrics = update(loss, gradients, metrics)
        return {name: tf.cast(value, tf.float64) for name, value in metrics.items()}

    return meta_step


def make_steps(
    replicas: Replicas,
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    config: Config,
    jit: bool,
) -> Callable:
    """Returns the `step_loop.make_run_steps` of a configuration.

    With mixed episodes, all steps of a call must share their shape: `steps_alike`.
    """
    names = ("gradient_threshold", "gradient_norm_threshold")
    thresholds = {name: getattr(config.optimizer, name) for name in names}
    meta_step = make_meta_step(replicas, learner, optimizer, jit=jit, **thresholds)
    seed, shapes = config.run.seed, config.episodes.shapes
    if len(shapes) == 1:
        return make_run_steps(meta_step, seed)
    # One graph per shape, traced when the shape is first drawn.
    of_shapes = [make_run_steps(meta_step, seed, shape) for shape in shapes]

    def run_steps(iterator, first, count):
        number = drawn_shapes(seed, first, 1, len(shapes))[0]
        return of_shapes[int(number)](iterator, first, count)

    return run_steps


def worker_loop(
    config: Config, replicas: Replicas, data: Data | None = None
) -> Learner:
    """Runs the training loop of a non-chief worker. Returns the learner.

    It reads the data but no run directory. The chief sends it the first step.

    Raises:
      InputError: if the data cannot be read.
      FlagError: if data or flags differ from the chief's.
    """
    wanted = ["train", "val"] if config.data.train_on_val else ["train"]
    split = dataset.load(config, wanted, data=data)["train"]
    workers = replicas.workers
    check_same(replicas, config, split)
    with replicas.scope():
        learner = build(config, split.embedding_size)
        jit = bool(workers.from_chief(False))
        optimizer = alone.adam(config.optimizer.outer_lr)
    run_steps = make_steps(replicas, learner, optimizer, config, jit)
    variables = [*learner.trainable_variables, *optimizer.variables]
    with StopRequest() as request:
        step = workers.share(0, (variable.value for variable in variables))
        iterator = iter(dataset.training_episodes(config, split, step))
        while step < config.run.num_steps:
            count = workers.agree(stop=request.signal is not None)
            if not count:
                break
            first, number = (tf.constant(n, tf.int64) for n in (step, count))
            float(run_steps(iterator, first, number)["loss"])  # waits
            step += count
    return learner


def check_same(replicas: Replicas, config: Config, split: Split) -> None:
    """Raises a FlagError unless all workers have the same flags, data and versions."""
    settings = config.replace(data_path="").to_dict()  # the path may differ
    common = [settings, split.digest, versions()]
    replicas.workers.check_same(json.dumps(common, sort_keys=True))


def _workers(say) -> Replicas:
    count, is_chief = read_cluster(os.environ)
    say(f"Waiting for {count} workers.")
    try:
        strategy = _multi_worker_strategy()
    except tf.errors.OpError as error:
        expected = "addresses at which the workers can be reached"
        raise FlagError(VARIABLE, expected, quoted(error.message)) from error
    # TensorFlow has replaced the handler of SIGTERM by one that does nothing.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return Replicas(strategy, Workers(strategy, count, is_chief))
