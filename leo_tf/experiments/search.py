"""Looks for better settings on the validation episodes: `--mode=search`.

Random search (Bergstra and Bengio, 2012): trials of drawn settings, each a run as any.

METHOD/trial_NN/             the run directory of each trial; diverged.json if it did
settings.json                the best of each method, for --method_settings
results.json, results.md     every trial
search.png                   validation accuracy against each setting
"""

import pathlib
import time

import numpy as np

from leo_tf.cli.flags import RunOptions
from leo_tf.errors import DivergedError, FlagError
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.job_results import Trial, best_of
from leo_tf.experiments.run_group import SeveralRuns
from leo_tf.files import read_json, to_json, write_file
from leo_tf.methods import registry as methods
from leo_tf.methods import settings as method_settings
from leo_tf.reports import search as report
from leo_tf.reports.figures import save
from leo_tf.reports.table import show
from leo_tf.runs.training_state import Progress

_DIVERGED, _SETTINGS = "diverged.json", "settings.json"
# Thousands of times what a configuration takes.
_MOST_BYTES = 2**20


def search(options: RunOptions) -> int:
    """Trains the trials of each method; started again, it goes on where it was.

    Returns:
      0, or 128 plus the signal that stopped it.

    Raises:
      LeoError: for anything the user can mend.
    """
    names = _names(options)
    jobs = [(name, trial) for name in names for trial in range(options.trials)]
    runs = SeveralRuns(options, "search")
    before = _found_before(runs)
    found, pace = {name: [] for name in names}, Pace(names, options.trials)
    for name, number in jobs:
        settings = method_settings.draw(name, runs.config.run.seed, number)
        drawn = " ".join(f"--{key}={value}" for key, value in settings.items())
        runs.tell(
            f"{methods.METHODS[name].title}, trial {number} of {options.trials - 1}: "
            f"{drawn or 'settings as given'}{pace.left(name, number)}"
        )
        start = time.monotonic()
        trial, status = _tried(runs, name, number, settings)
        if status:
            return status
        pace.add(name, time.monotonic() - start, trial.seconds)
        found[name].append(trial)
    _write(runs, found, before)
    show(report.terminal(found))
    print(f"Settings for --method_settings: {runs.path / _SETTINGS}")
    return 0


def _found_before(runs: SeveralRuns) -> dict[str, dict]:
    """What this search has found, for other methods than those asked for now, too."""
    path = runs.path / _SETTINGS
    return method_settings.read(str(path) if path.exists() else "", runs.config)


def _names(options: RunOptions) -> list[str]:
    """The methods to search for: of the default ones those that are trained."""
    asked = options.methods.split(",")
    names = [name for name in methods.METHODS if name in asked]
    trained = [name for name in names if methods.METHODS[name].is_trained]
    if not trained:
        expected = "a method that is trained; others choose for themselves"
        raise FlagError("--methods", expected, options.methods)
    for name in trained:
        methods.check(options.config.replace(method=name))
    return trained


class Pace:
    """How long is left, by the trials that were trained just now.

    Args:
      names: of the methods, in the order of their trials.
      trials: of each.
    """

    def __init__(self, names: list[str], trials: int):
        self._names, self._trials = names, trials
        self._seconds = {name: [] for name in names}

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


def _tried(runs: SeveralRuns, method: str, number: int, settings) -> tuple[Trial, int]:
    """A trial that is done, and its exit status; one that diverged is a result, too."""
    name, status = f"{method}/trial_{number:02}", 0
    config = runs.config.replace(method=method, **settings).to_dict()
    mark = runs.path / name / _DIVERGED
    diverged = _diverged_before(mark, config)
    if not diverged:
        try:
            status = runs.train(name, method=method, **settings)
        except DivergedError as error:
            runs.tell(str(error))
            # So that it is not trained again by whoever goes on with the search.
            write_file(mark, to_json({"error": str(error), "config": config}))
            diverged = True
    newest = None if status else runs.checkpoints(name).newest(runs.tell)
    progress = Progress.of(newest) if newest else Progress()
    accuracy = _best_validation(progress)
    steps, seconds = progress.step, progress.seconds
    trial = Trial(settings, accuracy, progress.best_step, steps, seconds, diverged)
    return trial, status


def _diverged_before(mark: pathlib.Path, config: dict) -> bool:
    """Whether this very run did; with anything else, training it tells."""
    try:
        return read_json(mark, _MOST_BYTES)["config"] == config
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _best_validation(progress: Progress) -> Interval | None:
    """The accuracy of the best step; None if there was no validation."""
    for record in progress.history:
        if record["step"] == progress.best_step:
            return Interval(record["val_accuracy"], record["val_half_width"])
    return None


def _searched(runs: SeveralRuns, method: str, trial: Trial) -> dict:
    """All that was searched, of trial 0 as well: other flags may be given later."""
    values = runs.config.replace(**trial.settings).flat()
    return {name: values[name] for name in method_settings.ranges(method)}


def _write(runs: SeveralRuns, found: dict[str, list[Trial]], before: dict) -> None:
    """The files of a search, each whole or not at all."""
    best = before | {
        name: _searched(runs, name, trials[number])
        for name, trials in found.items()
        if (number := best_of(trials)) is not None
    }
    values = {**report.as_dict(found), **runs.facts("val")}
    write_file(runs.path / _SETTINGS, to_json(best))
    write_file(runs.path / "results.json", to_json(values))
    markdown = report.markdown(found, runs.options.explicit)
    write_file(runs.path / "results.md", markdown.encode())
    save(runs.path / "search.png", report.picture(found))
