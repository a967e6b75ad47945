"""Training loop of a worker that is not the chief."""

import json

import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.sources import Data
from leo_tf.environment import versions
from leo_tf.methods.registry import build
from leo_tf.model.learner import Learner
from leo_tf.training.interrupts import StopRequest
from leo_tf.training.meta_step import adam
from leo_tf.training.replicas import Replicas, make_steps


def follow(config: Config, replicas: Replicas, data: Data | None = None) -> Learner:
    """Trains with the chief to the last step, or until a signal.

    It reads the data, and no run directory: where it begins, the chief says.

    Returns:
      The trained method.

    Raises:
      InputError: if the data cannot be read.
      FlagError: if it is not what the chief trains on, or the flags are not the same.
    """
    wanted = ["train", "val"] if config.data.train_on_val else ["train"]
    split = dataset.load(config, wanted, data=data)["train"]
    workers = replicas.workers
    check_same(replicas, config, split)
    with replicas.scope():
        learner = build(config, split.embedding_size)
        jit = bool(workers.from_chief(False))
        optimizer = adam(config.optimizer.outer_lr)
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
    """Checks that all workers train the same on the same data.

    Raises:
      FlagError: if flags, training data or versions are not the same on all.
    """
    settings = config.replace(data_path="").to_dict()  # the data may lie anywhere
    common = [settings, split.digest, versions()]
    replicas.workers.check_same(json.dumps(common, sort_keys=True))
