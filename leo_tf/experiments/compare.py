"""Compares several methods on the same test episodes: `--mode=compare`.

results.json, results.md     the table
accuracy.png                 accuracies with their intervals
reliability.png              confidence of each method against its accuracy
METHOD/, METHOD@TRANSFORM/   run directories of the methods
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from leo_tf.configs.presets import given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import CheckpointError, DivergedError, InputError, LeoError
from leo_tf.evaluation.adaptation_time import adaptation_seconds
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.job_results import Comparison, Row
from leo_tf.evaluation.validation_tuning import (
    Fitted,
    fit_transform,
    needs_training,
)
from leo_tf.experiments.evaluate import calibration, score
from leo_tf.experiments.open_set import check_open_set, score_open
from leo_tf.experiments.run_group import Planned, RunGroup, open_group
from leo_tf.experiments.runner.engines import Engine
from leo_tf.files import AnyPath
from leo_tf.methods.defaults import at_any_way, compared, in_time
from leo_tf.methods.registry import check, check_is_config, is_fitted, with_transform
from leo_tf.methods.settings import of, read, with_shared
from leo_tf.methods.transform_fitting import check_can_fit, check_can_hold
from leo_tf.methods.variants import in_running_order, in_table_order, variant_named
from leo_tf.model.learner import AnyLearner, is_exportable, takes_memory
from leo_tf.reports import comparison as report
from leo_tf.reports.figures import save
from leo_tf.reports.results import data as data_in_words
from leo_tf.runs.kept_results import Measured, read_kept
from leo_tf.runs.run import Run

# Settings of a method's run that its row shows elsewhere.
_NOT_SHOWN = ("method", "test_samples")


def compare(
    config: Config,
    methods: Sequence[str] | None = None,
    workdir: AnyPath | None = None,
    *,
    method_settings: Mapping[str, Mapping[str, object]] | str = "",
    open_set: bool = False,
    keep: bool = False,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
    jobs: int | None = 0,
    cluster: str = "",
    run_cpus: int = 1,
    run_gpus: float | None = None,
) -> Comparison:
    """Trains each method in its own run directory, then tests all of them.

    Untrained methods run first, because their results take only seconds. Another call
    with the same arguments resumes the comparison.

    Args:
      config: settings of all methods.
      methods: names of methods, or METHOD@TRANSFORM for one with its own feature
        transform. Differences are relative to LEO, or without it to the last inductive
        method of the table. Defaults to those of `methods.defaults`, without those
        that are slow on such episodes or whose transforms the data forbids.
      method_settings: name -> settings of this method, or the path of such a file.
      open_set: also test how well each method detects queries of other classes, and
        its prediction sets.
      keep: the methods are a choice of the caller, not the user's: leave out those
        whose transforms the data forbids, and return the results of a finished
        comparison of the same settings and data, instead of testing again.
      workdir, data, allow_changes, console: as for `train`.
      jobs, cluster, run_cpus, run_gpus: as in `Engine`.

    Returns:
      The results, which are also in results.json, results.md and plots.

    Raises:
      Stopped, LeoError: as for `search`.
    """
    engine = Engine(jobs, cluster, run_cpus, run_gpus)
    options: Any = {"data": data, "engine": engine, "console": console}
    options |= {"method_settings": method_settings, "allow_changes": allow_changes}
    options |= {"open_set": open_set, "was_asked": methods is not None and not keep}
    with opened(config, methods, workdir, **options) as job:
        found = _kept(job) if keep and not open_set else None
        if found is not None:
            console.say("The comparison is finished already; nothing has changed.")
            return found
        ended = job.group.train_all(planned(job))
        return concluded(job, ended, open_set)


class Opened(NamedTuple):
    """A comparison with a locked directory: its group, and each method's settings."""

    group: RunGroup
    settings: Mapping[str, dict]


@contextlib.contextmanager
def opened(
    config: Config,
    methods: Sequence[str] | None,
    workdir: AnyPath | None,
    *,
    method_settings: Mapping[str, Mapping[str, object]] | str,
    open_set: bool,
    was_asked: bool,
    **options: Any,
) -> Iterator[Opened]:
    """Checks the methods to compare, and opens the directory; see `compare`.

    Methods that the data forbids are refused if `was_asked` for, else
    left out. `options` are those of `open_group`.
    """
    check_is_config(config)
    names = methods
    if names is None:
        names = at_any_way(config, compared(config), options["console"])
    settings = _settings(config, names, method_settings)
    options["is_trained"] = any(variant_named(n).entry.is_trained for n in settings)
    with open_group("compare", config, workdir, **options) as group:
        if open_set:
            check_open_set(group.config, group.splits["test"])
        found = _that_fit(group, settings, was_asked=was_asked)
        if methods is None:
            tested = [group.splits[name] for name in ("val", "test")]
            shapes = [dataset.evaluation_shape(group.config, each) for each in tested]
            found = in_time(found, shapes, group.console)
        yield Opened(group, found)


def planned(job: Opened) -> dict[str, Planned]:
    """Returns the runs of a comparison.

    Each transform is fitted and tuned here, once for all methods that share it, unless
    that takes training: then the run does it.
    """
    group, plan = job.group, dict[str, Planned]()
    fitted: dict[tuple, Fitted] = {}
    for number, (name, own) in enumerate(job.settings.items(), start=1):
        variant = variant_named(name)
        said = f"{variant.title} ({number} of {len(job.settings)})"
        config = with_transform(group.config.replace(**own))
        # The choice of dims differs between trained and untrained methods.
        entry = variant.entry
        like = config.features, entry.is_trained, entry.knows_classes
        is_ours = is_fitted(config) and not needs_training(config, group.splits)
        if is_ours and like not in fitted:
            begun = group.fitted_by(name)
            fitted[like] = begun or fit_transform(config, group.splits)
        known = fitted.get(like) if is_ours else None
        plan[name] = Planned(own, said, to_test=True, fitted=known)
    return plan


def concluded(
    job: Opened, ended: Mapping[str, DivergedError | None], open_set: bool
) -> Comparison:
    """Tests all methods after training, and writes the results."""
    group = job.group
    for name, error in ended.items():
        if error is not None:
            _check_has_best(group, name, error)
    diverged = {name: error is not None for name, error in ended.items()}
    found = _tested(group, job.settings, diverged, open_set)
    group.write("test", report.as_dict(found), report.markdown(found))
    save(group.path / "accuracy.png", report.accuracies(found))
    save(group.path / "reliability.png", report.reliabilities(found))
    return found


def _settings(
    config: Config, asked: Sequence[str], own: Mapping[str, Mapping[str, object]] | str
) -> dict[str, dict]:
    """Returns name -> settings of its run, checked before any training."""
    variants = {name: variant_named(name) for name in in_table_order(asked)}
    own = read(own, config)
    settings: dict[str, dict] = {
        name: {**of(own, name), **each.settings} for name, each in variants.items()
    }
    settings = with_shared(config, settings)
    for each in settings.values():
        check(config.replace(**each))
    return {name: settings[name] for name in in_running_order(dict.fromkeys(asked))}


def _that_fit(
    group: RunGroup, settings: Mapping[str, dict], was_asked: bool
) -> dict[str, dict]:
    """Drops defaults whose transform the data forbids; refuses requested ones."""
    found = {}
    for name, own in settings.items():
        variant, table = variant_named(name), group.splits["train"].table
        kind = group.config.replace(**own).features.feature_transform
        try:
            check_can_fit(kind, table)
            if variant.entry.knows_classes and not was_asked:
                classes, size = len(table.index.class_sizes), table.features.shape[1]
                dims = group.config.features.transform_dims or min(classes - 1, size)
                check_can_hold(table, dims if kind == "lda" else size)
        except InputError as error:
            if was_asked or name == variant.method:
                where = f"{name}: {error.where}"
                raise InputError(where, error.expected, error.received) from error
            group.console.warn(f"{variant.title} is left out: {error}")
            continue
        found[name] = own
    return found


def _check_has_best(group: RunGroup, name: str, error: DivergedError) -> None:
    """Prints the checkpoint to test of a diverged method; raises without one."""
    where = f"{variant_named(name).title}, {error.where}"
    try:
        best = group.checkpoints(name).best()
    except CheckpointError:
        hint = f"Leave {name} out of --methods, or change its settings with "
        hint += "--method_settings in another --workdir. Trained runs are kept."
        parts = where, error.expected, error.received, hint
        raise DivergedError(*parts) from error
    best_is = f"its best checkpoint, of step {best.step}, is tested."
    group.console.say(f"{where}: diverged; {best_is}")


def _tested(
    group: RunGroup,
    settings: Mapping[str, Mapping],
    diverged: Mapping[str, bool],
    open_set: bool,
) -> Comparison:
    """Tests all methods on the same test episodes, and returns the results."""
    config, split = group.config, group.splits["test"]
    runs = {name: group.finished(name) for name in in_table_order(settings)}
    learners = {name: run.learner for name, run in runs.items()}
    known = {n: run.confidence(run.checkpoints.best()) for n, run in runs.items()}
    scores = group.tested(name for name in settings if not diverged[name])
    left = {name: each for name, each in learners.items() if name not in scores}
    if left:
        fitted = {name: known[name] for name in left}
        scores |= score(left, config, split, group.console, fitted=fitted)
    others = score_open(learners, config, split, group.console, known, open_set)
    reference = _reference(runs)
    measured = {}
    for name, run in runs.items():
        group.console.say(f"Timing the adaptation of {variant_named(name).title}.")
        difference = scores[name].accuracy - scores[reference].accuracy
        measured[name] = Measured(
            accuracy=interval(scores[name].accuracy),
            difference=None if name == reference else interval(difference),
            calibration=calibration(scores[name], known[name]),
            open_set=others.get(name),
            diverged=diverged[name],
            seconds_to_adapt=adaptation_seconds(run.learner, config, split),
        )
    found = _comparison(group, settings, runs, measured)
    return found._replace(lead=_lead(group, learners, found))


def _kept(job: Opened) -> Comparison | None:
    """Returns the results in the directory if they are those of this job."""
    group, names = job.group, in_table_order(job.settings)
    shown = {name: _shown(own) for name, own in job.settings.items()}
    digests = {name: split.digest for name, split in group.splits.items()}
    kept = read_kept(group.path / "results.json", group.config, digests, shown)
    if kept is None:
        return None
    try:
        runs = {name: group.finished(name) for name in names}
        steps = {n: (r.checkpoints.best().step, r.state.step) for n, r in runs.items()}
    except LeoError:  # a run was removed or damaged since
        return None
    if steps != kept.steps:
        return None
    found = _comparison(group, job.settings, runs, kept.measured)
    return found._replace(lead=kept.lead)


def _reference(names: Iterable[str]) -> str:
    """Returns the method that differences are relative to; see `compare`."""
    names = [*names]
    of_leo = [name for name in names if variant_named(name).method == "leo"]
    inductive = [n for n in names if not variant_named(n).entry.transductive]
    return (of_leo or [*names, *inductive][-1:])[0]


def _shown(own: Mapping[str, object]) -> dict[str, object]:
    """Returns a method's own settings that stand in its row."""
    return {k: v for k, v in own.items() if k not in _NOT_SHOWN and v is not None}


def _comparison(
    group: RunGroup,
    settings: Mapping[str, Mapping],
    runs: Mapping[str, Run],
    measured: Mapping[str, Measured],
) -> Comparison:
    """Returns the results of finished runs from what was measured of them."""
    config, of_all = group.config, group.config.features
    shared = all(config.replace(**own).features == of_all for own in settings.values())
    rows = [
        Row(
            name=name,
            **measured[name]._asdict(),
            parameters=sum(math.prod(v.shape) for v in run.learner.trainable_variables),
            best_step=run.checkpoints.best().step,
            steps=run.state.step,
            seconds_trained=run.state.seconds,
            chosen=run.chosen,
            share_not_finite=run.state.share_not_finite,
            validation=run.validation,
            transform=run.config.features.feature_transform,
            shared=shared,
            ensemble=run.config.methods.ensemble,
            is_exportable=is_exportable(run.learner),
            settings=_shown(settings[name]),
        )
        for name, run in runs.items()
    ]
    return Comparison(
        rows,
        _reference(runs),
        data_in_words(config) if shared else config.data.dataset_name,
        dataset.evaluation_shape(config, group.splits["test"]),
        config.run.num_test_episodes,
        config.run.test_samples,
        given=given(config),
        selects=not config.data.train_on_val,
        directory=group.path,
    )


def _lead(
    group: RunGroup, learners: Mapping[str, AnyLearner], found: Comparison
) -> Interval | None:
    """Returns the lead of the best over the next, paired by validation episode."""
    ranked = found.ranked(found.inductive)
    if len(ranked) < 2:
        return None
    config, count = group.config, group.config.run.num_val_episodes
    two = {row.name: learners[row.name] for row in ranked[:2]}
    together = any(takes_memory(learner) for learner in two.values())
    split = group.splits["val"]
    episodes = dataset.evaluation_episodes(config, split, count, together)
    with group.console.progress("validation", count, unit="episodes") as line:
        best, other = evaluate(two, episodes, line.advance).values()
    return interval(best.accuracy - other.accuracy)
