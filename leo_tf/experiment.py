"""Whole jobs: train a run directory, or evaluate one. `run_leo.py` calls `run`."""

import functools
import os
import shlex
import sys

import keras
import numpy as np
import tensorflow as tf

from configs.errors import FlagError
from configs.flags import RunOptions
from configs.schema import Config
from leo_tf import datasets, pictures, report
from leo_tf.baselines.protonet import NearestCentroid
from leo_tf.checkpoints import Checkpoints, restore
from leo_tf.datasets import Split
from leo_tf.evaluation import collect, evaluate, interval, make_scorer
from leo_tf.meta_step import adam, answer
from leo_tf.monitoring import Monitor
from leo_tf.progress import ProgressLine, say
from leo_tf.run_directory import RunDirectory
from leo_tf.run_evaluation import build, evaluate_run, test, title
from leo_tf.trainer import Trainer, uses_jit


def run(options: RunOptions) -> int:
    """Does what the command line asks for.

    Returns:
      The exit status: 0, or 128 plus the signal that stopped the training.

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
    return train(options)


def device() -> str:
    """What TensorFlow computes on, in words."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return f"{len(gpus)} GPU" + "s" * (len(gpus) > 1)
    return f"CPU, {os.cpu_count()} cores"


def train(options: RunOptions) -> int:
    """Trains in the run directory, from where it stands, then tests the best.

    Returns:
      0, or 128 plus the signal that stopped it.
    """
    config = _with_absolute_path(options.config)
    workdir = options.workdir or default_workdir(config)
    with RunDirectory(workdir).for_training(config) as directory:
        tell = functools.partial(say, quiet=options.quiet)
        splits = datasets.load(config, quiet=options.quiet)
        _describe(config, splits, tell)
        leo = build(config, splits["train"])
        checkpoints = Checkpoints(directory.path, config.run.keep_checkpoints)
        newest = checkpoints.newest(say, set_aside=True)
        jit = uses_jit(config)
        if newest:
            if newest.step > config.run.num_steps:
                expected = f"{newest.step} or more: so many steps are done"
                raise FlagError("--num_steps", expected, str(config.run.num_steps))
            datasets.check_unchanged(splits, newest.manifest["data"])
            jit = newest.manifest["jit"]  # as it began, however long it gets
        trainer, centroid = _trainer(config, jit, splits, leo, checkpoints, directory)
        if newest:
            trainer.resume(newest)
            tell(f"Going on from step {newest.step} in {workdir}.")
        directory.write_config(config)
        with _progress(config, trainer, options) as line:
            trainer.run(line)
        if trainer.stopped_by is not None:
            step = trainer.progress.step
            tell(f"Stopped and saved at step {step}; the same command goes on.")
            return 128 + trainer.stopped_by
        pictures.learning_curve(
            directory.path / "learning_curve.png", trainer.progress.history, centroid
        )
        _test_trained(config, splits["test"], leo, trainer, directory, options)
    return 0


def _with_absolute_path(config: Config) -> Config:
    """So that the run can be evaluated from any directory."""
    if not config.data.data_path:
        return config
    return config.replace(data_path=os.path.abspath(config.data.data_path))


def default_workdir(config: Config) -> str:
    """Where a run goes if nobody says: below `runs`, named by data and episodes."""
    shape = config.episodes
    return f"runs/{config.data.dataset_name}_{shape.way}way_{shape.shot}shot"


def _trainer(config, jit, splits, leo, checkpoints, directory):
    """The trainer, and nearest centroid's accuracy on the validation episodes."""

    def validation_episodes():
        count = config.run.num_val_episodes
        return datasets.evaluation_episodes(config, splits["val"], count)

    scorer = make_scorer({report.LEO_NAME: leo})
    trainer = Trainer(
        leo,
        adam(config.optimizer.outer_lr),
        config.replace(jit="on" if jit else "off"),
        episodes=functools.partial(datasets.training_episodes, config, splits["train"]),
        validate=lambda: collect(scorer, validation_episodes())[report.LEO_NAME],
        checkpoints=checkpoints,
        monitor=Monitor(directory.path / "events"),
        facts={
            "config": config.to_dict(),
            "data": {name: split.digest for name, split in splits.items()},
            "embedding_size": splits["train"].embedding_size,
            "jit": jit,
            "device": device(),
            "versions": report.versions(),
        },
    )
    centroid = {report.CENTROID_NAME: NearestCentroid()}
    scores = evaluate(centroid, validation_episodes())[report.CENTROID_NAME]
    return trainer, interval(scores.accuracy)


def _test_trained(config, split, leo, trainer, directory, options):
    """Tests the best checkpoint; writes results.json and the episode's picture."""
    best = trainer.checkpoints.best()
    restore(best, {variable.path: variable.value for variable in leo.variables})
    results = test(config, split, leo, options)
    facts = {
        "test": datasets.evaluation_shape(config, split),
        "step": best.step,
        "steps_trained": trainer.progress.step,
        "steps_not_finite": trainer.progress.non_finite,
        "seconds_trained": round(trainer.progress.seconds, 1),
        "seed": config.run.seed,
        "source": split.source,
        **{
            key: trainer.facts[key]
            for key in ("data", "device", "jit", "versions", "config")
        },
    }
    directory.write_json("results.json", report.as_json(results, **facts))
    if split.images is not None:
        _draw_episode(config, split, leo, directory.path / "episode.png")
    report.print_table(results, title(config, split, best.step))
    print(f"Run directory: {directory.path}")
    python = shlex.quote(os.path.relpath(sys.executable))
    logdir = shlex.quote(f"--logdir={directory.path}")
    print(f"TensorBoard:   {python} -m tensorboard.main {logdir}")


def _draw_episode(config, split: Split, leo, path):
    """Draws the first test episode with LEO's and nearest centroid's answers."""
    dataset = datasets.evaluation_episodes(config, split, 1, with_rows=True)
    episode, rows = next(iter(dataset))
    answers = {}
    for name, learner in (("LEO", leo), ("centroid", NearestCentroid())):
        answers[name] = np.argmax(answer(learner, episode)[1][0], axis=-1)  # [N, Q]
    pictures.episode(
        path,
        support=split.images[rows.support[0]],
        query=split.images[rows.query[0]],
        class_names=[split.class_names[c] for c in rows.classes[0]],
        answers=answers,
    )


def _describe(config: Config, splits: dict[str, Split], tell):
    for split in splits.values():
        tell(str(split))
    shape = config.episodes
    tell(f"Device: {device()}.")
    tell(
        f"Training episodes: {shape.way}-way {shape.shot}-shot, {shape.num_query} "
        f"queries a class, {shape.meta_batch_size} a step."
    )
    for name in ("val", "test"):
        shape = datasets.evaluation_shape(config, splits[name])
        tell(
            f"Episodes of {name}: {shape['way']}-way {shape['shot']}-shot, "
            f"{shape['num_query']} queries a class."
        )


def _progress(config, trainer, options) -> ProgressLine:
    return ProgressLine(
        "train", config.run.num_steps, trainer.progress.step, quiet=options.quiet
    )
