"""Whole jobs, one a mode. `run_leo.py` calls `run`."""

import functools

import keras

from leo_tf.cli.flags import RunOptions
from leo_tf.console import say
from leo_tf.errors import FlagError
from leo_tf.experiments.compare import compare
from leo_tf.experiments.evaluate import evaluate_run
from leo_tf.experiments.reproduce import reproduce
from leo_tf.experiments.search import search
from leo_tf.experiments.train import train
from leo_tf.export.exporter import export_run
from leo_tf.methods.registry import method_named
from leo_tf.training.replicas import start
from leo_tf.training.worker_loop import follow


def run(options: RunOptions) -> int:
    """Does what the command line asks for.

    Returns:
      The exit status: 0, or 128 plus the signal that stopped the training. All
      workers of a training return that of the chief.

    Raises:
      LeoError: for anything the user can mend.
    """
    if keras.backend.backend() != "tensorflow":
        raise FlagError(
            "KERAS_BACKEND", "tensorflow", keras.backend.backend(), "Unset it."
        )
    if options.mode == "evaluate":
        evaluate_run(options)
        return 0
    if options.mode == "export":
        export_run(options)
        return 0
    if options.mode == "compare":
        return compare(options)
    if options.mode == "reproduce":
        return reproduce(options)
    if options.mode == "search":
        return search(options)
    return _train_on_replicas(options)


def _train_on_replicas(options: RunOptions) -> int:
    config = options.config
    method, strategy = config.methods.method, config.run.strategy
    if strategy != "none" and not method_named(method).is_trained:
        expected = f"none with {method}, which is not trained"
        raise FlagError("--strategy", expected, strategy)
    replicas = start(config, functools.partial(say, quiet=options.quiet))
    workers, status = replicas.workers, 0
    with workers.watched():
        if workers.is_chief:
            status = train(options, replicas)
        else:
            follow(config, replicas)
        # The others wait here for the chief, who tests.
        return int(workers.from_chief(status))
