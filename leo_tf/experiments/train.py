"""One run: trains in its directory, from where it stands, then tests the best."""

import dataclasses
import functools
import os
from collections.abc import Mapping

from leo_tf.cli.flags import RunOptions
from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine, say
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.environment import device, versions
from leo_tf.errors import FlagError, InputError
from leo_tf.evaluation.evaluate import collect, evaluate, make_scorer
from leo_tf.evaluation.intervals import interval
from leo_tf.evaluation.results import BASELINE
from leo_tf.evaluation.validation_tuning import choose
from leo_tf.experiments.evaluate import test_trained
from leo_tf.methods.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import METHODS, build
from leo_tf.monitoring import run_summary as monitor_facts
from leo_tf.monitoring.event_writer import Monitor
from leo_tf.monitoring.profiler import Profile
from leo_tf.monitoring.validation import ValidationMonitor
from leo_tf.reports import figures
from leo_tf.runs.checkpoints import Checkpoint, Checkpoints
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.resume_check import check_unchanged
from leo_tf.runs.training_state import Progress
from leo_tf.training.meta_step import adam
from leo_tf.training.replicas import Replicas
from leo_tf.training.trainer import Trainer, uses_jit
from leo_tf.training.worker_loop import check_same


def train(
    options: RunOptions,
    replicas: Replicas,
    splits: Mapping[str, Split] | None = None,
    is_tested: bool = True,
) -> int:
    """Trains in the run directory, from where it stands, then tests the best.

    Args:
      options: what was asked for.
      replicas: what trains; of several workers this is the chief.
      splits: the data, if it is loaded already.
      is_tested: whether to test.

    Returns:
      0, or 128 plus the signal that stopped it.
    """
    config = with_absolute_path(options.config)
    workdir = options.workdir or default_workdir(config)
    run = RunDirectory(workdir)
    if options.allow_changes:
        _refuse_another_method(run, config)
    config = _with_choices_of(run, config)
    with run.for_training(config, options.allow_changes) as directory:
        tell = functools.partial(say, quiet=options.quiet)
        if splits is None:
            splits = datasets.load(config, quiet=options.quiet)
            describe(config, splits, tell)
        config = _chosen(config, splits, tell)
        check_same(replicas, config, splits["train"])
        with replicas.scope():
            learner = build(config, splits["train"].embedding_size)
        checkpoints = Checkpoints(directory.path, config.run.keep_checkpoints)
        newest = checkpoints.newest(say)
        if newest:
            data = newest.fact("data", dict)
            check_unchanged(splits, data, options.allow_changes)
        parts = config, splits, learner, checkpoints, newest, directory, options
        if not METHODS[config.methods.method].is_trained:
            progress, facts = _keep_untrained(*parts)
        else:
            trainer = _train(*parts, replicas)
            progress, facts = trainer.progress, trainer.facts
            if trainer.stopped_by is not None:
                step = trainer.progress.step
                tell(f"Stopped and saved at step {step}; the same command goes on.")
                return 128 + trainer.stopped_by
        if is_tested:
            test_trained(
                config, splits["test"], learner, directory, progress, facts, options
            )
    return 0


def _train(
    config, splits, learner, checkpoints, newest, directory, options, replicas
) -> Trainer:
    """Trains to the last step, or until a signal, and draws the learning curve."""
    jit = uses_jit(config)
    if newest:
        if newest.step > config.run.num_steps:
            expected = f"{newest.step} or more: so many steps are done"
            raise FlagError("--num_steps", expected, str(config.run.num_steps))
        if config.run.jit == "auto":  # as it began, however long it gets
            jit = newest.fact("jit", bool)
    jit = bool(replicas.workers.from_chief(jit))
    parts = config, jit, splits, learner, checkpoints, directory, replicas
    trainer, centroid = _trainer(*parts, options.profile_steps)
    if newest:
        checkpoints.newest(lambda reason: None, set_aside=True)  # now that it goes on
        trainer.resume(newest)
        begin = "Trained already, to" if trainer.is_done else "Going on from"
        say(f"{begin} step {newest.step} in {directory.path}.", options.quiet)
    trainer.profile.check(trainer.progress.step, config.run.num_steps)
    directory.write_config(config)
    if not trainer.is_done:
        monitor_facts.show(trainer.shown.monitor, config, splits, options)
    with _progress(config, trainer, options) as line:
        trainer.run(line)
    if trainer.stopped_by is None:
        title = METHODS[config.methods.method].title
        curve = figures.learning_curve(trainer.progress.history, centroid, title)
        figures.save(directory.path / "learning_curve.png", curve)
    return trainer


def _keep_untrained(
    config, splits, learner, checkpoints, newest: Checkpoint | None, directory, options
) -> tuple[Progress, dict]:
    """Validates a method without training, and keeps it as a checkpoint of step 0.

    Returns:
      Its progress, and what its manifest holds besides.
    """
    if options.profile_steps is not None:
        method = config.methods.method
        raise FlagError("--profile_steps", "a method that is trained", method)
    facts = _facts(config, splits, jit=False)
    if newest:
        return Progress.of(newest), facts
    name = config.methods.method
    count = config.run.num_val_episodes
    episodes = datasets.evaluation_episodes(config, splits["val"], count)
    scores = evaluate({name: learner}, episodes)[name]
    accuracy, progress = interval(scores.accuracy), Progress(best_step=0)
    progress.best_accuracy = accuracy.mean
    progress.record(accuracy, scores.loss, {})
    say(progress.validation_line(accuracy, "  nothing to train"), options.quiet)
    directory.write_config(config)
    checkpoints.save(0, {}, {**facts, "progress": dataclasses.asdict(progress)})
    checkpoints.mark_best(0)
    return progress, facts


def _refuse_another_method(run: RunDirectory, config: Config):
    """Whatever is allowed, no variable would fit; and one without any has its own."""
    begun, mine = run.begun_config(), config.methods.method
    if begun and begun.methods.method != mine:
        hint = "Train it in another --workdir."
        theirs = begun.methods.method
        raise InputError(str(run.path), f"a run of {mine}", theirs, hint)


def _with_choices_of(run: RunDirectory, config: Config) -> Config:
    """What a run chose when it began is its own: not chosen again, nor refused."""
    begun, mine = run.begun_config(), config.flat()
    if begun is None:
        return config
    theirs = begun.flat()
    names = METHODS[config.methods.method].chosen
    return config.replace(**{n: theirs[n] for n in names if mine[n] is None})


def _chosen(config: Config, splits: dict[str, Split], tell) -> Config:
    """With what the method wants chosen on the validation episodes."""
    split, count = splits["val"], config.run.num_val_episodes
    episodes = functools.partial(datasets.evaluation_episodes, config, split, count)
    chosen = choose(config, split.embedding_size, episodes)
    for name, value, _ in chosen.differences(config):
        tell(f"Chosen on validation episodes: --{name}={value:.3g}.")
    return chosen


def with_absolute_path(config: Config) -> Config:
    """So that the run can be evaluated from any directory."""
    if not config.data.data_path:
        return config
    return config.replace(data_path=os.path.abspath(config.data.data_path))


def default_workdir(config: Config) -> str:
    """Where a run goes if nobody says: below `runs`, named by data and episodes."""
    shape = config.episodes
    return f"runs/{config.data.dataset_name}_{shape.way}way_{shape.shot}shot"


def _trainer(
    config, jit, splits, learner, checkpoints, directory, replicas, profile_steps
):
    """The trainer, and nearest centroid's accuracy on the validation episodes."""
    # Made once: TensorFlow keeps some 20 kB of every dataset that was ever made.
    validation_episodes = datasets.evaluation_episodes(
        config, splits["val"], config.run.num_val_episodes
    )
    name = config.methods.method
    scorer = make_scorer({name: learner}, splits["val"].table)

    def validate(on_batch):
        return collect(scorer, validation_episodes.rows, on_batch)[name]

    centroid = {BASELINE: NearestCentroid()}
    scores = evaluate(centroid, validation_episodes)[BASELINE]
    baseline = interval(scores.accuracy)
    monitor = Monitor(directory.path / "events")
    closer = ValidationMonitor(monitor, learner, config, splits["val"], baseline.mean)
    with replicas.scope():
        optimizer = adam(config.optimizer.outer_lr)
    trainer = Trainer(
        learner,
        optimizer,
        config.replace(jit="on" if jit else "off"),
        episodes=functools.partial(datasets.training_episodes, config, splits["train"]),
        validate=validate,
        checkpoints=checkpoints,
        monitor=monitor,
        show_more=closer.show,
        profile=Profile(monitor.directory, profile_steps),
        replicas=replicas,
        facts=_facts(config, splits, jit),
    )
    return trainer, baseline


def _facts(config, splits, jit) -> dict:
    """What every manifest holds besides variables and progress."""
    return {
        "config": config.to_dict(),
        "data": {name: split.digest for name, split in splits.items()},
        "embedding_size": splits["train"].embedding_size,
        "jit": jit,
        "device": device(),
        "versions": versions(),
    }


def describe(config: Config, splits: Mapping[str, Split], tell) -> None:
    """Tells what data, device and episodes a run has."""
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
