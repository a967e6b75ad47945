"""Looks for better settings on the validation episodes: `--mode=search`.

Trials of settings that Optuna draws, each a run as any, by successive halving (Jamieson
and Talwalkar, 2016, arXiv:1502.07943): all are trained to a first rung, and the best
third goes on from there. What a trial comes to at a rung is what it would come to if it
had not stopped there.

METHOD/trial_NN/             the run directory of each trial; diverged.json if it did
trials.json                  what was drawn for them
settings.json                the best of each method, for --method_settings
results.json, results.md     every trial
search.png, parallel.png     validation accuracy against each setting, and all together
study.journal                the same for optuna-dashboard
"""

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from leo_tf.configs import rules
from leo_tf.configs.presets import given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import DivergedError, FlagError, InputError, shown
from leo_tf.evaluation.job_results import Trial, best_of
from leo_tf.experiments.run_group import Planned, RunGroup, open_group
from leo_tf.experiments.runner.engines import Engine
from leo_tf.experiments.study import Journal, importances
from leo_tf.files import AnyPath, read_json, to_json, write_file
from leo_tf.methods.drawing import BATCH, SAMPLERS, check_installed, draw
from leo_tf.methods.registry import check, check_is_config
from leo_tf.methods.settings import SEARCHED, ranges, read, with_shared
from leo_tf.methods.variants import in_table_order, variant_named
from leo_tf.reports import search as report
from leo_tf.reports.figures import save
from leo_tf.runs.training_state import TrainingState

DEFAULT_TRIALS, DEFAULT_RUNGS = 16, 3
SETTINGS_FILE = "settings.json"
_TRIALS, _JOURNAL, _DIVERGED = "trials.json", "study.journal", "diverged.json"
# One of so many trials goes on from a rung to the next, so many times as long.
_FACTOR = 3
# Thousands of times what a configuration, or a thousand trials, take.
_MOST_BYTES = 2**22


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
      trials: method -> its trials, in the order of their numbers.
      best: method -> the settings found best for it; a method is missing if all its
        trials diverged. `compare` takes it as `method_settings`.
      directory: of the search.
      importances: method -> setting -> its share in how trials differ.
    """

    trials: dict[str, list[Trial]]
    best: dict[str, dict]
    directory: pathlib.Path
    importances: dict[str, dict[str, float]]


def search(
    config: Config,
    methods: Sequence[str] | None = None,
    workdir: AnyPath | None = None,
    *,
    trials: int = DEFAULT_TRIALS,
    sampler: str = SAMPLERS[0],
    rungs: int = DEFAULT_RUNGS,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
    jobs: int | None = 0,
    cluster: str = "",
    run_cpus: int = 1,
    run_gpus: float | None = None,
) -> SearchResult:
    """Trains the trials of each method; called again, it goes on where it was.

    Args:
      config: what the first trial has; the others change some of it.
      methods: names, METHOD or METHOD@TRANSFORM; those that are not trained are
        passed over. By default `SEARCHED`.
      trials: how many for each method.
      sampler: what draws their settings: "random", "tpe" or "qmc".
      rungs: in how many lengths they are trained: all of them to the first, and the
        best third of a method's to the next, three times as long; 1 trains all to the
        end.
      workdir, data, allow_changes, console: as for `train`.
      jobs, cluster, run_cpus, run_gpus: as of `Engine`.

    Raises:
      Stopped: if a signal stopped it; what was trained is saved.
      LeoError: for anything the user can mend.
    """
    trials = rules.integer(1).checked(trials, "--trials")
    rungs = rules.integer(1).checked(rungs, "--rungs")
    rules.choice(*SAMPLERS).checked(sampler, "--sampler")
    check_installed(sampler)
    own = _settings(config, SEARCHED if methods is None else methods)
    engine = Engine(jobs, cluster, run_cpus, run_gpus)
    options: Any = {"console": console, "engine": engine}
    with open_group("search", config, workdir, data, allow_changes, **options) as group:
        # What it has found before, for other methods than those asked for now, too.
        path = group.path / SETTINGS_FILE
        before = read(str(path) if path.exists() else "", group.config)
        searching = _Search(group, own, steps_of(group.config, rungs))
        searching.first_rung(sampler, trials)
        for rung in range(1, len(searching.rungs)):
            searching.next_rung(rung)
        return _write(group, searching.ended(), before)


def steps_of(config: Config, rungs: int) -> list[int]:
    """Returns the steps of the rungs, validated ones; fewer rungs in a short run.

    Each is a third of the next, as trials are a third of those before.
    """
    last, every = config.run.num_steps, config.run.validate_every
    found = [last]
    for rung in range(1, rungs):
        step = last // _FACTOR**rung // every * every
        if every <= step < found[0]:
            found.insert(0, step)
    return found


class _Search:
    """The trials of each method, as they climb the rungs together."""

    def __init__(self, group: RunGroup, own: Mapping[str, dict], rungs: list[int]):
        self.group, self.own, self.rungs = group, own, rungs
        self.journal = Journal(group.path / _JOURNAL, group.console)
        self.drawn = _read_drawn(group.path / _TRIALS, group.config)
        self.trials: dict[str, dict[int, Trial]] = {name: {} for name in own}

    def first_rung(self, sampler: str, trials: int) -> None:
        """Draws all trials, and trains them to the first rung."""
        self.count = trials
        size = BATCH if sampler == "tpe" else trials
        for first in range(0, trials, size):
            numbers = range(first, min(first + size, trials))
            for name in self.own:
                self._draw(name, sampler, numbers)
            self._train(dict.fromkeys(self.own, numbers), 0)

    def next_rung(self, rung: int) -> None:
        """Trains the best third of those of the rung before to the next."""
        chosen = {}
        for name, trials in self.trials.items():
            reached = {n: t.rungs for n, t in trials.items() if len(t.rungs) >= rung}
            ranked = sorted(reached, key=lambda n: (-reached[n][rung - 1], n))
            room = math.ceil(self.count / _FACTOR**rung)
            chosen[name] = sorted(ranked[:room])
        self._train(chosen, rung)

    def ended(self) -> dict[str, list[Trial]]:
        """Returns method -> its trials, none of which goes further."""
        for name, trials in self.trials.items():
            for number, trial in trials.items():
                is_last = len(trial.rungs) == len(self.rungs)
                self.journal.end(name, number, trial, is_last)
        return {name: [*trials.values()] for name, trials in self.trials.items()}

    def _draw(self, name: str, sampler: str, numbers: range) -> None:
        """Draws those that are not drawn yet; what is drawn is kept."""
        drawn = self.drawn.setdefault(name, [{}])  # trial 0 is what was given
        missing = range(len(drawn), numbers.stop)
        if not missing:
            return
        known = [
            (self._searched(name, trial.settings), (*trial.rungs, None)[0])
            for trial in self.trials[name].values()
        ]
        found = draw(name, sampler, self.group.config.run.seed, missing, known)
        drawn += [_possible(each, self.group) for each in found]
        write_file(self.group.path / _TRIALS, to_json(self.drawn))

    def _train(self, chosen: Mapping[str, Sequence[int]], rung: int) -> None:
        """Trains trials to a rung; those that diverged before are not trained again."""
        every = [(name, number) for name, some in chosen.items() for number in some]
        plan: dict[str, Planned] = {}
        for name, number in every:
            settings = {**self.own[name], **self.drawn[name][number]}
            self.journal.begin(name, number, self._searched(name, settings))
            if not _diverged_before(self.group, _directory(name, number), settings):
                plan[_directory(name, number)] = self._planned(name, number, rung)
        ended = self.group.train_all(plan)
        for name, number in every:
            directory = _directory(name, number)
            if (error := ended.get(directory)) is not None:
                _note_diverged(self.group, directory, plan[directory].settings, error)
            diverged = error is not None or directory not in plan
            steps, drawn = self.rungs[: rung + 1], self.drawn[name][number]
            trial = _trial(self.group, directory, drawn, diverged, steps)
            self.trials[name][number] = trial
            if len(trial.rungs) > rung:
                self.journal.report(name, number, trial.rungs[rung], self.rungs[rung])

    def _planned(self, name: str, number: int, rung: int) -> Planned:
        drawn, of, until = self.drawn[name][number], self.count, self.rungs[rung]
        flags = " ".join(f"--{key}={value}" for key, value in drawn.items())
        said = f"{variant_named(name).title}, trial {number}, {number + 1} of {of}: "
        said += flags or "settings as given"
        is_last = rung == len(self.rungs) - 1
        settings = {**self.own[name], **drawn}
        return Planned(settings, said, until=None if is_last else until)

    def _searched(self, name: str, settings: Mapping[str, Any]) -> dict[str, float]:
        """The values of what is searched for, of trial 0 as well."""
        config = self.group.config.replace(**{**self.own[name], **settings})
        values = config.flat()
        return {n: values[n] for n in ranges(name) if values[n] is not None}


def _directory(name: str, number: int) -> str:
    return f"{name}/trial_{number:02}"


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


def _trial(
    group: RunGroup,
    directory: str,
    drawn: dict[str, float],
    diverged: bool,
    rungs: Sequence[int],
) -> Trial:
    """What a trial has come to by now, and up to each of these rungs."""
    newest = group.checkpoints(directory).newest(group.console.say)
    state = TrainingState.of(newest) if newest else TrainingState()
    rows = [row for row in state.history if row["val_accuracy"] is not None]
    # One that is done has reached them all, wherever it stopped for want of progress.
    last = max((row["step"] for row in state.history), default=0)
    done = [step for step in rungs if step <= last or not diverged]
    bests: list[Any] = [  # None without a finite one
        max((row["val_accuracy"] for row in rows if row["step"] <= step), default=None)
        for step in done
    ]
    found = state.best_validation
    steps, share = (state.best_step, state.step), state.share_not_finite
    reached = tuple(itertools.takewhile(lambda best: best is not None, bests))
    return Trial(drawn, found, *steps, state.seconds, diverged, share, reached)


def _note_diverged(
    group: RunGroup, directory: str, settings: Mapping[str, Any], error: DivergedError
) -> None:
    """So that it is not trained again by whoever goes on with the search."""
    group.console.say(str(error))
    config = group.config.replace(**settings).to_dict()
    content = {"error": str(error), "config": config}
    write_file(group.path / directory / _DIVERGED, to_json(content))


def _diverged_before(
    group: RunGroup, directory: str, settings: Mapping[str, Any]
) -> bool:
    """Whether this very run did; with anything else, training it tells."""
    config = group.config.replace(**settings).to_dict()
    try:
        mark = read_json(group.path / directory / _DIVERGED, _MOST_BYTES)
        return mark["config"] == config
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _read_drawn(path: pathlib.Path, config: Config) -> dict[str, list[dict]]:
    """What was drawn before: the trials of each method, in order."""
    if not path.exists():
        return {}
    try:
        found = read_json(path, _MOST_BYTES)
        for each in itertools.chain.from_iterable(found.values()):
            config.replace(**each)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        expected = "a JSON object of the trials that were drawn"
        raise InputError(str(path), expected, shown(str(error))) from error
    return found


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
    shares = {name: importances(name, trials) for name, trials in found.items()}
    markdown = report.markdown(found, given(group.config), shares)
    group.write("val", report.as_dict(found, shares), markdown)
    save(group.path / "search.png", report.picture(found))
    save(group.path / "parallel.png", report.parallel(found))
    return SearchResult(found, best, group.path, shares)
