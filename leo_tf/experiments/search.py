"""Looks for better settings on the validation episodes: `--mode=search`.

Random search (Bergstra and Bengio, 2012): trials of drawn settings, each a run as any.

METHOD/trial_NN/             the run directory of each trial; diverged.json if it did
settings.json                the best of each method, for --method_settings
results.json, results.md     every trial
search.png                   validation accuracy against each setting
"""

import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leo_tf.configs import rules
from leo_tf.configs.presets import given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import DivergedError, FlagError
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.job_results import Trial, best_of
from leo_tf.experiments.run_group import RunGroup, open_group
from leo_tf.files import AnyPath, read_json, to_json, write_file
from leo_tf.methods.registry import check, check_is_config
from leo_tf.methods.settings import SEARCHED, draw, ranges, read, with_shared
from leo_tf.methods.variants import in_table_order, variant_named
from leo_tf.reports import search as report
from leo_tf.reports.figures import save
from leo_tf.runs.training_state import TrainingState

DEFAULT_TRIALS = 16
SETTINGS_FILE = "settings.json"
_DIVERGED = "diverged.json"
# Thousands of times what a configuration takes.
_MOST_BYTES = 2**20


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
      trials: method -> its trials, in the order of their numbers.
      best: method -> the settings found best for it; a method is missing if all its
        trials diverged. `compare` takes it as `method_settings`.
      directory: of the search.
    """

    trials: dict[str, list[Trial]]
    best: dict[str, dict]
    directory: pathlib.Path


def search(
    config: Config,
    methods: Sequence[str] | None = None,
    workdir: AnyPath | None = None,
    *,
    trials: int = DEFAULT_TRIALS,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> SearchResult:
    """Trains the trials of each method; called again, it goes on where it was.

    Args:
      config: what the first trial has; the others change some of it.
      methods: names, METHOD or METHOD@TRANSFORM; those that are not trained are
        passed over. By default `SEARCHED`.
      trials: runs to train for each method.
      workdir, data, allow_changes, console: as for `train`.

    Raises:
      Stopped: if a signal stopped it; what was trained is saved.
      LeoError: for anything the user can mend.
    """
    trials = rules.integer(1).checked(trials, "--trials")
    own = _settings(config, SEARCHED if methods is None else methods)
    group = open_group("search", config, workdir, data, allow_changes, console)
    # What it has found before, for other methods than those asked for now, too.
    path = group.path / SETTINGS_FILE
    before = read(str(path) if path.exists() else "", group.config)
    found: dict[str, list[Trial]] = {name: [] for name in own}
    pace = Pace([*own], trials)
    for name, number in ((n, i) for n in own for i in range(trials)):
        settings = _possible(draw(name, group.config.run.seed, number), group)
        drawn = " ".join(f"--{key}={value}" for key, value in settings.items())
        console.say(
            f"{variant_named(name).title}, trial {number}, {number + 1} of {trials}: "
            f"{drawn or 'settings as given'}{pace.left(name, number)}"
        )
        start = time.monotonic()
        trial = _tried(group, f"{name}/trial_{number:02}", own[name], settings)
        pace.add(name, time.monotonic() - start, trial.seconds)
        found[name].append(trial)
    return _write(group, found, before)


def _possible(drawn: dict[str, float], group: RunGroup) -> dict[str, float]:
    """What was drawn, with no more discriminants than the training classes have."""
    train = group.splits["train"]
    most = min(len(train.class_names) - 1, train.embedding_size)
    dims = drawn.get("transform_dims")
    return drawn if dims is None else {**drawn, "transform_dims": min(dims, most)}


def _settings(config: Config, asked: Sequence[str]) -> dict[str, dict]:
    """Of those methods that are trained, what all their trials have; checked."""
    check_is_config(config)
    if config.methods.ensemble != "none":
        expected = "none with --mode=search, which ranks methods alone"
        raise FlagError("--ensemble", expected, config.methods.ensemble)
    variants = {name: variant_named(name) for name in in_table_order(asked)}
    trained = [name for name, each in variants.items() if each.entry.is_trained]
    if not trained:
        expected = "a method that is trained; others choose for themselves"
        raise FlagError("--methods", expected, ",".join(asked))
    settings = with_shared(config, {n: variants[n].settings for n in trained})
    for own in settings.values():
        check(config.replace(**own))
    return settings


class Pace:
    """How long is left, by the trials of methods, in this order, trained just now."""

    def __init__(self, names: list[str], trials: int):
        self._names, self._trials = names, trials
        self._seconds: dict[str, list[float]] = {name: [] for name in names}

    def add(self, name: str, seconds: float, trained: float) -> None:
        """Counts a trial that took `seconds` now, and `trained` in training ever."""
        if seconds > trained / 2:  # else it was found done
            self._seconds[name].append(seconds)

    def left(self, name: str, number: int) -> str:
        """What a trial and those after it will take, in words; empty if unknown."""
        known = [second for seconds in self._seconds.values() for second in seconds]
        if not known:
            return ""
        place = self._names.index(name)
        counts = {later: self._trials for later in self._names[place:]}
        counts[name] -= number
        # Of a method that was not trained yet, the average of all.
        means = {n: np.mean(self._seconds[n] or known) for n in counts}
        minutes = sum(count * means[n] for n, count in counts.items()) / 60
        return f" (about {minutes:.0f} min left)" if minutes >= 1 else ""


def _tried(group: RunGroup, name: str, own: dict, drawn: dict) -> Trial:
    """A trial that is done; one that diverged is a result, too."""
    settings = {**own, **drawn}
    config = group.config.replace(**settings).to_dict()
    mark = group.path / name / _DIVERGED
    diverged = _diverged_before(mark, config)
    if not diverged:
        try:
            group.train(name, **settings)
        except DivergedError as error:
            group.console.say(str(error))
            # So that it is not trained again by whoever goes on with the search.
            write_file(mark, to_json({"error": str(error), "config": config}))
            diverged = True
    newest = group.checkpoints(name).newest(group.console.say)
    state = TrainingState.of(newest) if newest else TrainingState()
    best = {row["step"]: row for row in state.history}.get(state.best_step)
    found = Interval(best["val_accuracy"], best["val_half_width"]) if best else None
    steps = state.best_step, state.step
    share = state.share_not_finite
    return Trial(drawn, found, *steps, state.seconds, diverged, share)


def _diverged_before(mark: pathlib.Path, config: dict) -> bool:
    """Whether this very run did; with anything else, training it tells."""
    try:
        return read_json(mark, _MOST_BYTES)["config"] == config
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _write(
    group: RunGroup, found: dict[str, list[Trial]], before: dict[str, dict]
) -> SearchResult:
    """Writes the files of a search, each whole or not at all."""
    best = dict(before)
    for method, trials in found.items():
        number = best_of(trials)
        if number is not None:
            # All that was searched, of trial 0 as well: other flags may be given later.
            values = group.config.replace(**trials[number].settings).flat()
            mine = {name: values[name] for name in ranges(method)}
            best[method] = {n: value for n, value in mine.items() if value is not None}
    write_file(group.path / SETTINGS_FILE, to_json(best))
    markdown = report.markdown(found, given(group.config))
    group.write("val", report.as_dict(found), markdown)
    save(group.path / "search.png", report.picture(found))
    return SearchResult(found, best, group.path)
