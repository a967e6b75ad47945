"""Training on several devices at once: a meta-batch in equal parts, one update.

Every replica holds all variables, takes its own tasks of the same meta-batch and draws
for them what one device would draw. Gradients are averaged before the NaN rule and
before clipping, so the update is that of one device, up to the order of sums.

Shapes: B tasks in the meta-batch, R replicas.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.episode import Episode
from leo_tf.errors import FlagError, shown
from leo_tf.model.learner import Learner
from leo_tf.training import meta_step as alone
from leo_tf.training.step_loop import make_run_steps
from leo_tf.training.tf_config import VARIABLE, read_cluster
from leo_tf.training.workers import Workers

# Each is made once in a process: a second one would use the keys of the first one's
# exchanges for its own.
_mirrored_strategy = functools.cache(tf.distribute.MirroredStrategy)
_multi_worker_strategy = functools.cache(tf.distribute.MultiWorkerMirroredStrategy)


class Replicas:
    """What trains together: the devices of this process, and of other workers.

    Args:
      strategy: of `tf.distribute`; without one, the device that TensorFlow picks.
      workers: the processes.

    Attributes:
      count: R.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        workers: Workers | None = None,
    ):
        self.strategy: Any = strategy
        self.workers = workers or Workers()
        self.count = strategy.num_replicas_in_sync if strategy else 1

    def scope(self) -> contextlib.AbstractContextManager:
        """A context manager: variables made in it are on every replica."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def mean_of_parts(
        self, function: Callable, episode: Episode, *arguments: Any
    ) -> list[tf.Tensor]:
        """The means, over the replicas, of what each computes for its own tasks.

        Args:
          function: (tasks of `episode`, number of the first, *arguments) -> list of
            tensors of static shapes and one dtype.
          episode: B tasks; B is static, and a multiple of R.
          arguments: the same for all.
        """

        def on_replica(episode, *arguments):
            context = tf.distribute.get_replica_context()
            number = context.replica_id_in_sync_group
            tasks = episode.support_inputs.shape[0] // self.count
            with tf.device("CPU:0"):  # where episodes are: no device gets all of one
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
        """Updates the variables on every replica by gradients that are averaged.

        `optimizer.apply` would sum them over the replicas once more.
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


def start(config: Config, tell: Callable[[str], None]) -> Replicas:
    """The replicas that `--strategy` asks for; before TensorFlow computes anything.

    Waits until all other workers have started, too, if there are any.

    Args:
      config: of the run.
      tell: shows a line to the user.

    Raises:
      FlagError: if TF_CONFIG is missing or wrong, or the meta-batch cannot be split.
    """
    if config.run.strategy == "none":
        return Replicas()
    replicas = _mirrored(tell) if config.run.strategy == "mirrored" else _workers(tell)
    tasks = config.episodes.meta_batch_size
    if tasks % replicas.count:
        expected = f"a multiple of {replicas.count}, the number of replicas"
        raise FlagError("--meta_batch_size", expected, str(tasks))
    if replicas.workers.is_chief:
        tell(f"Replicas: {replicas.count}, with {tasks // replicas.count} tasks each.")
    return replicas


def make_meta_step(
    replicas: Replicas,
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    *,
    jit: bool = False,
    **thresholds: float,
) -> Callable[[Episode, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """`meta_step.make_meta_step` on all replicas.

    Args:
      replicas: in whose scope learner and optimizer were made.
      learner, optimizer, thresholds: see `meta_step.make_update`.
      jit: compile with XLA. On replicas only the gradients of each are compiled, as
        nothing can be exchanged in what is compiled.
    """
    if replicas.strategy is None:
        return alone.make_meta_step(learner, optimizer, jit=jit, **thresholds)
    with replicas.scope():
        update = alone.make_update(
            learner, optimizer, apply=replicas.apply, **thresholds
        )
    keys: list[str] = []  # of the metrics, as soon as they are traced

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
    """The `step_loop.make_run_steps` of a configuration, input watched."""
    meta_step = make_meta_step(
        replicas,
        learner,
        optimizer,
        jit=jit,
        gradient_threshold=config.optimizer.gradient_threshold,
        gradient_norm_threshold=config.optimizer.gradient_norm_threshold,
    )
    return make_run_steps(meta_step, config.run.seed, watch=True)


def _mirrored(tell) -> Replicas:
    """On all GPUs, or else on all logical CPU devices, of which there is one."""
    devices = tf.config.list_logical_devices("GPU")
    if not devices:
        tell("There is no GPU: --strategy=mirrored gains nothing.")
        devices = tf.config.list_logical_devices("CPU")
    return Replicas(_mirrored_strategy(tuple(device.name for device in devices)))


def _workers(tell) -> Replicas:
    cluster = read_cluster(os.environ)
    tell(f"Waiting for {cluster.workers} workers.")
    try:
        strategy = _multi_worker_strategy()
    except tf.errors.OpError as error:
        expected = "addresses at which the workers can be reached"
        raise FlagError(VARIABLE, expected, shown(error.message)) from error
    # TensorFlow has taken SIGTERM, and does nothing when it comes.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return Replicas(strategy, Workers(strategy, cluster))
