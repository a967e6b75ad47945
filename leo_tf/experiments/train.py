"""One run: trains or resumes in its directory, then tests the best checkpoint."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import EpisodesByRow
from leo_tf.data_pipeline.sources import Data
from leo_tf.environment import device
from leo_tf.errors import CheckpointError, DivergedError, FlagError, Stopped
from leo_tf.evaluation.evaluate import collect, evaluate, make_scorer
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.results import BASELINE
from leo_tf.evaluation.validation_tuning import (
    SHORT_STEPS,
    Fitted,
    choose,
    fit_transform,
)
from leo_tf.experiments.evaluate import test_run
from leo_tf.files import AnyPath, near, read_json
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import (
    build,
    check,
    is_fitted,
    method_named,
    method_of,
)
from leo_tf.methods.transform_fitting import check_fits
from leo_tf.monitoring import run_summary
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.profiler import Profile
from leo_tf.monitoring.validation import ValidationMonitor
from leo_tf.reports import figures
from leo_tf.reports import results as report
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.run import Run, open_run
from leo_tf.runs.settings import default_workdir, named, with_data
from leo_tf.runs.training_state import TrainingState
from leo_tf.training.callback import Callback, HistoryFile, call_all, check_callbacks
from leo_tf.training.meta_step import adam
from leo_tf.training.replicas import Replicas, check_same, start, worker_loop
from leo_tf.training.short_run import accuracy_after
from leo_tf.training.trainer import Trainer

_SHORT_RUNS = "discriminants.json"
# Metadata of a checkpoint that the validation of an untrained method depends on.
_SETTLED = ("config", "data")


def train(
    config: Config,
    workdir: AnyPath | None = None,
    *,
    data: Data | None = None,
    callbacks: Sequence[Callback] = (),
    replicas: Replicas | None = None,
    allow_changes: bool = False,
    profile_steps: tuple[int, int] | None = None,
    console: Console = SILENT,
) -> Run:
    """Trains or resumes in a run directory, then tests the best checkpoint.

    Another call with the same arguments resumes the run, or finds it finished.

    Args:
      config: configuration of the run.
      workdir: run directory; None for one named by data and episodes.
      data: result of `load_data`; None for the configured data. Arrays are kept in the
        run directory, so that the run can be resumed and evaluated.
      callbacks: callbacks that are called during training.
      replicas: devices that train together; None for those of `config.run.strategy`.
      allow_changes: resume even if settings or data differ from the run's own.
      profile_steps: first and last training step of a TensorFlow profile.
      console: console for progress; by default nothing is printed.

    Returns:
      The run, with `learner`, `history` and `results`.

    Raises:
      Stopped: a KeyboardInterrupt, after SIGINT or SIGTERM. Training so far is saved.
      LeoError: for any error that the user can fix.
    """
    _check_trained(config, profile_steps)
    check_callbacks(callbacks)
    # Before all workers compare their settings.
    config = with_data(named(config) if data is None else config, data, workdir)
    replicas = start(config, console.say) if replicas is None else replicas
    workers = replicas.workers
    with workers.watched():
        if not workers.is_chief:
            run = Run(RunDirectory(workdir or default_workdir(config)), config)
            run.learner = worker_loop(config, replicas, data)
            run.stopped_by = int(workers.from_chief(0)) or None  # waits for the test
        else:
            options: Any = {"allow_changes": allow_changes, "console": console}
            with open_run(config, workdir, data=data, **options) as run:
                splits = dataset.load(run.config, data=data, console=console)
                is_trained = method_of(run.config).is_trained
                describe(run.config, splits, is_trained, console)
                with fitting_confidence(run, splits["val"]):
                    train_run(run, splits, replicas, callbacks, profile_steps)
                if run.stopped_by is None:
                    test_run(run, splits["test"])
                call_all(callbacks, "on_end", run)
            workers.from_chief(run.stopped_by or 0)
    if run.stopped_by is not None:
        raise Stopped(run.stopped_by)
    return run


@contextlib.contextmanager
def fitting_confidence(run: Run, split: Split) -> Iterator[None]:
    """Fits confidence to the best checkpoint after training, even after divergence."""
    try:
        yield
    except DivergedError:
        with contextlib.suppress(CheckpointError):  # there may be no checkpoint yet
            run.fit_confidence(split)
        raise
    if run.stopped_by is None:
        run.fit_confidence(split)


def train_run(
    run: Run,
    splits: Mapping[str, Split],
    replicas: Replicas,
    callbacks: Sequence[Callback] = (),
    profile_steps: tuple[int, int] | None = None,
    fitted: Fitted | None = None,
    until: int | None = None,
) -> None:
    """Trains an open run to its last step, or until a signal. Does not test it.

    Arguments are those of `train`. `fitted` is a feature transform fitted to these
    splits, if there is one already, and `until` is as in `Trainer`.
    """
    callbacks = (HistoryFile(), *callbacks)
    run.check_data(splits)
    _fit_transform(run, splits, replicas, fitted)
    run.config = _tuned(run, splits["val"])
    check_same(replicas, run.config, splits["train"])
    size = splits["train"].embedding_size
    with replicas.scope():
        run.learner = build(run.config, size, run.transform)
    method = method_of(run.config)
    run.jit = method.is_trained and bool(replicas.workers.from_chief(run.jit))
    run.note_data(splits)
    if not method.is_trained:
        return _validate_untrained(run, splits["val"], callbacks)
    trainer, centroid = _trainer(run, splits, replicas, callbacks, profile_steps)
    trainer.until = until
    if run.newest:
        # Unusable ones are renamed only now that the run resumes.
        run.checkpoints.newest(lambda reason: None, set_aside=True)
        trainer.resume(run.newest, run.console.warn)
        begin = "Already trained to" if trainer.is_done else "Resuming from"
        run.console.say(f"{begin} step {run.newest.step} in {near(run.path)}.")
    run.state, total = trainer.state, trainer.last_step
    trainer.profile.check(run.state.step, total)
    run.write_config()
    if not trainer.is_done:
        run_summary.show(trainer.shown.monitor, run.config, splits, run.path)
    call_all(callbacks, "on_start", run)
    with run.console.progress("train", total, run.state.step) as line:
        trainer.run(line)
    run.stopped_by = trainer.stopped_by
    if run.stopped_by is not None:
        step = run.state.step
        run.console.say(f"Stopped and saved at step {step}. The same command resumes.")
    else:
        curve = figures.learning_curve(run.history, centroid, method.title)
        figures.save(run.path / "learning_curve.png", curve)


def _trainer(run: Run, splits, replicas, callbacks, profile_steps):
    """Returns the trainer, and nearest centroid's validation accuracy."""
    config, validation, name = run.config, splits["val"], run.config.methods.method
    # Created once, because TensorFlow keeps some 20 kB of every dataset forever.
    episodes = _validation_episodes(config, validation)
    scorer = make_scorer({name: run.learner}, validation.table)

    def validate(on_batch):
        return collect(scorer, episodes.rows, on_batch)[name]

    baseline = _baseline(run, validation, episodes)
    run.console.say(f"Nearest centroid on the validation episodes: {baseline} %.")
    monitor = EventWriter(run.path / "events")
    closer = ValidationMonitor(monitor, run.learner, config, validation, baseline.mean)
    with replicas.scope():
        optimizer = adam(config.optimizer.outer_lr)
    trainer = Trainer(
        run.learner,
        optimizer,
        config,
        jit=run.jit,
        episodes=functools.partial(dataset.training_episodes, config, splits["train"]),
        validate=validate,
        checkpoints=run.checkpoints,
        monitor=monitor,
        show_more=closer.show,
        profile=Profile(monitor.directory, profile_steps),
        replicas=replicas,
        callbacks=callbacks,
        metadata=run.metadata,
    )
    return trainer, baseline


# Of this process: the trials of a search, say, have the same.
_baselines: dict[tuple, Interval] = {}


def _baseline(run: Run, split: Split, episodes: EpisodesByRow) -> Interval:
    """Returns nearest centroid's accuracy on validation episodes, computed once."""
    config, digest = run.config, run.transform.digest if run.transform else ""
    count, seed = config.run.num_val_episodes, config.run.seed
    key = split.digest, digest, config.episodes, count, seed, config.data.dtype
    if key not in _baselines:
        centroid = run.on_features(NearestCentroid())
        scores = evaluate({BASELINE: centroid}, episodes)[BASELINE]
        _baselines[key] = interval(scores.accuracy)
    return _baselines[key]


def _validate_untrained(run: Run, split: Split, callbacks: Sequence[Callback]) -> None:
    """Validates a method without training, and saves it as a checkpoint of step 0.

    A run that is already there is validated again only if its settings or data differ.
    """
    call_all(callbacks, "on_start", run)
    begun = run.newest
    if begun and all(run.metadata[n] == begun.entry(n, dict) for n in _SETTLED):
        run.state = TrainingState.of(begun)
        return
    learners, count = {"method": run.learner}, run.config.run.num_val_episodes
    with run.console.progress("validation", count, unit="episodes") as line:
        episodes = _validation_episodes(run.config, split)
        scores = evaluate(learners, episodes, line.advance)["method"]
    accuracy = interval(scores.accuracy)
    state = TrainingState(best_step=0, best_accuracy=accuracy.mean)
    state.record(accuracy, scores.loss, {})
    run.console.say(state.validation_line(accuracy, "  nothing to train"))
    run.write_config()
    manifest = {**run.metadata, "progress": dataclasses.asdict(state)}
    if begun:
        run.checkpoints.annotate(begun, manifest)
    else:
        run.checkpoints.save(0, {}, manifest)
    run.checkpoints.mark_best(0)
    run.state = state
    call_all(callbacks, "on_validation", 0, state.history[-1])


def _check_trained(config: Config, profile_steps: tuple[int, int] | None) -> None:
    """Refuses invalid settings, and training options for an untrained method."""
    check(config)
    method, strategy = config.methods.method, config.run.strategy
    if method_named(method).is_trained:
        return
    if strategy != "none":
        expected = f"none with {method}, which is not trained"
        raise FlagError("--strategy", expected, strategy)
    if profile_steps is not None:
        raise FlagError("--profile_steps", "a method that is trained", method)


def _tuned(run: Run, split: Split) -> Config:
    """Returns the configuration with settings tuned on the validation episodes."""
    episodes = functools.partial(_validation_episodes, run.config, split)
    given = split.embedding_size, episodes, run.transform, run.console
    chosen = choose(run.config, *given)
    found = chosen.differences(run.config)
    for name, value, _ in found:
        run.console.say(f"Chosen on validation episodes: --{name}={value:.3g}.")
    if found and run.config.data.train_on_val and is_fitted(run.config):
        names = " and ".join(f"--{name}" for name, *_ in found)
        seen = "on validation classes to which the features' transform is fitted"
        hint = "New classes may need other values: those of a run without it."
        run.console.warn(f"--train_on_val: {names} chosen {seen}. {hint}")
    return chosen


def _fit_transform(
    run: Run, splits: Mapping[str, Split], replicas: Replicas, fitted: Fitted | None
) -> None:
    """Fits the feature transform when the run begins, or reads it later."""
    if not is_fitted(run.config):
        return
    if run.newest:
        run.read_transform(run.newest)
    else:
        compare = functools.partial(_compare_briefly, run, splits, replicas)
        fitted = fitted or fit_transform(run.config, splits, compare)
        run.config = dataclasses.replace(run.config, features=fitted.features)
        run.transform = fitted.transform
        if run.config.features.feature_transform != "none":
            run.console.say(f"Features: {report.data(run.config)}.")
    for split in splits.values():
        if run.transform is not None:
            check_fits(run.transform, split.table)


def _compare_briefly(
    run: Run,
    splits: Mapping[str, Split],
    replicas: Replicas,
    options: Sequence[Fitted],
) -> list[float]:
    """Returns validation accuracies after a short training run on each transform.

    They are kept, so that a stopped command does not repeat those that ended.
    """
    config, found = run.config, _short_runs(run, splits)
    left = [each for each in options if str(each.features.transform_dims) not in found]
    dims = ", ".join(str(each.features.transform_dims) for each in options)
    hint = "--transform_dims=64, for example, skips this."
    steps = SHORT_STEPS
    run.console.say(f"Choosing from {dims} discriminants: {steps:,} steps each. {hint}")
    total, unit = steps * len(left), "trial steps"
    with run.console.progress("choose discriminants", total, unit=unit) as line:
        for each in left:
            option = dataclasses.replace(config, features=each.features)
            given = steps, option, splits, each.transform, line, replicas, run.jit
            accuracy = accuracy_after(*given)
            found[str(each.features.transform_dims)] = accuracy
            kept = {"of": _basis(run, splits), "accuracies": found}
            run.directory.write_json(_SHORT_RUNS, kept)
    accuracies = [found[str(each.features.transform_dims)] for each in options]
    shown = ("diverged" if math.isnan(a) else f"{100 * a:.2f} %" for a in accuracies)
    run.console.say(f"Validation accuracies: {', '.join(shown)}.")
    return accuracies


def _basis(run: Run, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Returns what short training runs depend on, as values that fit JSON."""
    data = {name: split.digest for name, split in splits.items()}
    return {"config": run.config.to_dict(), "data": data, "steps": SHORT_STEPS}


def _short_runs(run: Run, splits: Mapping[str, Split]) -> dict[str, float]:
    """Returns discriminants -> accuracy of the short training runs that have ended."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = read_json(run.path / _SHORT_RUNS)
        if kept["of"] == _basis(run, splits):
            found = kept["accuracies"].items()
            return {d: math.nan if a is None else float(a) for d, a in found}
    return {}


def _validation_episodes(config: Config, split: Split):
    count, method = config.run.num_val_episodes, method_of(config)
    together = method.query_aware or method.knows_classes
    return dataset.evaluation_episodes(config, split, count, together)


def describe(
    config: Config, splits: Mapping[str, Split], is_trained: bool, console: Console
) -> None:
    """Prints data, device and episodes of a run, or of runs if any is trained."""
    for split in splits.values():
        console.say(str(split))
    console.say(f"Device: {device()}.")
    if is_trained:
        each = dataclasses.asdict(config.episodes)
        said = "{way}-way {shot}-shot, {num_query} queries per class".format(**each)
        size = config.episodes.meta_batch_size
        console.say(f"Training episodes: {said}, {size} per step.")
        shapes = config.episodes.shapes
        if len(shapes) > 1:
            drawn = ", ".join(f"{way}-way {shot}-shot" for way, shot in shapes)
            console.say(f"Drawn for each step, for all its episodes: {drawn}.")
        every = "{num_steps:,} steps, validated every {validate_every:,} and at the end"
        every = every.format(**dataclasses.asdict(config.run))
        shorter = "--num_steps and --patience shorten it"
        if config.data.train_on_val:  # every validation counts as the best
            shorter = "--num_steps shortens it"
        console.say(f"Training: {every}; {shorter}.")
    for name in ("val", "test"):
        shape = dataset.evaluation_shape(config, splits[name])
        console.say(f"Episodes of {name}: {report.episodes(shape)}.")
