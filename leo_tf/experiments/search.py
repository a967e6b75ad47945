"""Searches for better settings on the validation episodes: `--mode=search`.

Optuna draws the settings of trials, which are ordinary runs. By successive halving
(Jamieson and Talwalkar, 2016, arXiv:1502.07943), all trials train to a first rung, and
the best third resumes from there. Stopping at a rung does not change a trial's results.

METHOD/trial_NN/             run directory of a trial, with diverged.json if it diverged
trials.json                  settings drawn for the trials
settings.json                best settings of each method, for --method_settings
results.json, results.md     results of all trials
search.png, parallel.png     validation accuracy against single and all settings
study.journal                the trials for optuna-dashboard
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
from leo_tf.errors import DivergedError, FlagError, InputError, quoted
from leo_tf.evaluation.job_results import Trial, best_of
from leo_tf.experiments.run_group import Planned, RunGroup, open_group
from leo_tf.experiments.runner.engines import Engine
from leo_tf.experiments.study import Journal, importances
from leo_tf.files import AnyPath, read_json, to_json, write_file
from leo_tf.methods.defaults import SEARCHED, at_any_way
from leo_tf.methods.drawing import BATCH, SAMPLERS, check_installed, draw
from leo_tf.methods.registry import check, check_is_config
from leo_tf.methods.settings import ranges, read, with_shared
from leo_tf.methods.variants import in_table_order, variant_named
from leo_tf.reports import search as report
from leo_tf.reports.figures import save
from leo_tf.runs.training_state import TrainingState

SETTINGS_FILE = "settings.json"
_TRIALS, _JOURNAL, _DIVERGED = "trials.json", "study.journal", "diverged.json"
# One in this many trials moves to the next rung, which is this many times as long.
_FACTOR = 3
# Thousands of times the size of a configuration; enough for thousands of trials.
_MOST_BYTES = 2**22


class SearchResult(NamedTuple):
    """Results of a search.

    Attributes:
      trials: method -> its trials, in the order of their numbers.
      best: method -> its best settings; a method is missing if all its trials diverged.
        `compare` takes it as `method_settings`.
      directory: directory of the search.
      importances: method -> setting -> its share in the differences between trials.
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
    trials: int = 16,
    sampler: str = SAMPLERS[0],
    rungs: int = 3,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
    jobs: int | None = 0,
    cluster: str = "",
    run_cpus: int = 1,
    run_gpus: float | None = None,
) -> SearchResult:
    """Trains the trials of each method. Another call resumes the search.

    Args:
      config: settings of the first trial; the others change some of them.
      methods: names, METHOD or METHOD@TRANSFORM. Untrained methods are skipped.
        Defaults to `SEARCHED`, without those of a fixed way if tests have another.
      trials: number of trials per method.
      sampler: sampler of the settings that are not drawn yet: "random", "tpe" or
        "qmc".
      rungs: number of stages. All trials train to the first rung, and the best third
        of each method to the next, three times as long; 1 trains all to the end.
      workdir, data, allow_changes, console: as for `train`.
      jobs, cluster, run_cpus, run_gpus: as in `Engine`.

    Raises:
      Stopped: if a signal stopped it. Training so far is saved.
      LeoError: for any error that the user can fix.
    """
    trials = rules.integer(1).checked(trials, "--trials")
    rungs = rules.integer(1).checked(rungs, "--rungs")
    rules.choice(*SAMPLERS).checked(sampler, "--sampler")
    check_installed(sampler)
    check_is_config(config)
    if methods is None:
        methods = at_any_way(config, SEARCHED, console)
    own = _settings(config, methods, console)
    engine = Engine(jobs, cluster, run_cpus, run_gpus)
    options: Any = {"console": console, "engine": engine}
    with open_group("search", config, workdir, data, allow_changes, **options) as group:
        # Includes earlier results for methods that are not searched now.
        path = group.path / SETTINGS_FILE
        before = read(str(path) if path.exists() else "", group.config)
        steps = steps_of(group.config, rungs)
        if len(steps) < rungs:
            at = ", ".join(map(str, steps))
            said = f"{len(steps)} of {rungs} rungs, which end at steps {at}"
            console.say(f"{said}: others would end before the first validation.")
        searching = _Search(group, own, steps)
        searching.first_rung(sampler, trials)
        for rung in range(1, len(searching.rungs)):
            searching.next_rung(rung)
        return _write(group, searching.ended(), before)


def steps_of(config: Config, rungs: int) -> list[int]:
    """Returns the steps of the rungs, which are validated; fewer in a short run.

    Each is about a third of the next.
    """
    last, every = config.run.num_steps, config.run.validate_every
    found = [last]
    for rung in range(1, rungs):
        step = last // _FACTOR**rung // every * every
        if every <= step < found[0]:
            found.insert(0, step)
    return found


class _Search:
    """The trials of all methods, trained rung by rung."""

    def __init__(self, group: RunGroup, own: Mapping[str, dict], rungs: list[int]):
        self.group, self.own, self.rungs = group, own, rungs
        self.journal = Journal(group.path / _JOURNAL, group.console)
        self.drawn = _read_drawn(group.path / _TRIALS, group.config)
        self.trials: dict[str, dict[int, Trial]] = {name: {} for name in own}

    def first_rung(self, sampler: str, trials: int) -> None:
        """Draws all trials and trains them to the first rung."""
        self.count = trials
        size = BATCH if sampler == "tpe" else trials
        for first in range(0, trials, size):
            numbers = range(first, min(first + size, trials))
            for name in self.own:
                self._draw(name, sampler, numbers)
            self._train(dict.fromkeys(self.own, numbers), 0)

    def next_rung(self, rung: int) -> None:
        """Trains the best third of the trials of the last rung to the next."""
        chosen = {}
        for name, trials in self.trials.items():
            reached = {n: t.rungs for n, t in trials.items() if len(t.rungs) >= rung}
            ranked = sorted(reached, key=lambda n: (-reached[n][rung - 1], n))
            chosen[name] = sorted(ranked[: self._room(rung)])
        self._train(chosen, rung)

    def ended(self) -> dict[str, list[Trial]]:
        """Returns method -> its trials, and marks all of them as ended."""
        for name, trials in self.trials.items():
            for number, trial in trials.items():
                is_last = len(trial.rungs) == len(self.rungs)
                self.journal.end(name, number, trial, is_last)
        return {name: [*trials.values()] for name, trials in self.trials.items()}

    def _draw(self, name: str, sampler: str, numbers: range) -> None:
        """Draws and saves the settings of trials that have none yet."""
        drawn = self.drawn.setdefault(name, [{}])  # trial 0 has the given settings
        missing = range(len(drawn), numbers.stop)
        if not missing:
            return
        known = [
            (self._searched(name, trial.settings), (*trial.rungs, None)[0])
            for trial in self.trials[name].values()
        ]
        # The whole batch, because TPE considers its other draws, too.
        batch, seed = (
            range(max(1, numbers.start), numbers.stop),
            self.group.config.run.seed,
        )
        found = draw(name, sampler, seed, batch, known)[-len(missing) :]
        drawn += [_possible(each, self.group) for each in found]
        write_file(self.group.path / _TRIALS, to_json(self.drawn))

    def _train(self, chosen: Mapping[str, Sequence[int]], rung: int) -> None:
        """Trains trials to a rung, except those that diverged before."""
        every = [(name, number) for name, some in chosen.items() for number in some]
        plan: dict[str, Planned] = {}
        for name, number in every:
            settings = {**self.own[name], **self.drawn[name][number]}
            self.journal.begin(name, number, self._searched(name, settings))
            if not _diverged_before(self.group, _directory(name, number), settings):
                plan[_directory(name, number)] = self._planned(name, number, rung)
        made = 1 + max((number for _, number in every), default=-1)
        ended = self.group.train_all(plan, self._later(rung, made))
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

    def _room(self, rung: int) -> int:
        return math.ceil(self.count / _FACTOR**rung)

    def _later(self, rung: int, drawn: int) -> float:
        """Returns the work left after a rung's first `drawn` trials, as in `View`."""
        steps = (self.count - drawn) * self.rungs[0] if rung == 0 else 0
        for later in range(rung + 1, len(self.rungs)):
            steps += self._room(later) * (self.rungs[later] - self.rungs[later - 1])
        return steps * sum(variant_named(name).entry.step_cost for name in self.own)

    def _planned(self, name: str, number: int, rung: int) -> Planned:
        drawn, of, until = self.drawn[name][number], self.count, self.rungs[rung]
        flags = " ".join(f"--{key}={value}" for key, value in drawn.items())
        said = f"{variant_named(name).title}, trial {number}, {number + 1} of {of}: "
        said += flags or "settings as given"
        is_last = rung == len(self.rungs) - 1
        settings = {**self.own[name], **drawn}
        begun = self.rungs[rung - 1] if rung else 0
        return Planned(settings, said, until=None if is_last else until, begun=begun)

    def _searched(self, name: str, settings: Mapping[str, Any]) -> dict[str, float]:
        """Returns the values of the searched settings, also of trial 0."""
        config = self.group.config.replace(**{**self.own[name], **settings})
        values = config.flat()
        return {n: values[n] for n in ranges(name) if values[n] is not None}


def _directory(name: str, number: int) -> str:
    return f"{name}/trial_{number:02}"


def _possible(drawn: dict[str, float], group: RunGroup) -> dict[str, float]:
    """Limits drawn discriminants to the number that the training classes have."""
    train = group.splits["train"]
    most = min(len(train.class_names) - 1, train.embedding_size)
    dims = drawn.get("transform_dims")
    return drawn if dims is None else {**drawn, "transform_dims": min(dims, most)}


def _settings(
    config: Config, asked: Sequence[str], console: Console
) -> dict[str, dict]:
    """Returns the checked settings shared by all trials of each trained method."""
    if config.methods.ensemble != "none":
        expected = "none with --mode=search, which ranks plain methods"
        raise FlagError("--ensemble", expected, config.methods.ensemble)
    variants = {name: variant_named(name) for name in in_table_order(asked)}
    trained = [name for name, each in variants.items() if each.entry.is_trained]
    others = [each.title for name, each in variants.items() if name not in trained]
    if trained and others:
        said = "not searched; methods without training tune themselves"
        console.say(f"{' and '.join(others)}: {said}.")
    if not trained:
        expected = "a method that is trained; others tune themselves"
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
    """Returns the results of a trial so far, and up to each of these rungs."""
    newest = group.checkpoints(directory).newest(group.console.say)
    state = TrainingState.of(newest) if newest else TrainingState()
    rows = [row for row in state.history if row["val_accuracy"] is not None]
    # A finished trial has reached all rungs, even if it ended early at a plateau.
    last = max((row["step"] for row in state.history), default=0)
    done = [step for step in rungs if step <= last or not diverged]
    bests: list[Any] = [  # None without a finite accuracy
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
    """Marks a trial as diverged, so that resuming does not train it again."""
    group.console.say(str(error))
    config = group.config.replace(**settings).to_dict()
    content = {"error": str(error), "config": config}
    write_file(group.path / directory / _DIVERGED, to_json(content))


def _diverged_before(
    group: RunGroup, directory: str, settings: Mapping[str, Any]
) -> bool:
    """Returns whether a trial with exactly these settings has diverged before."""
    config = group.config.replace(**settings).to_dict()
    try:
        mark = read_json(group.path / directory / _DIVERGED, _MOST_BYTES)
        return mark["config"] == config
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _read_drawn(path: pathlib.Path, config: Config) -> dict[str, list[dict]]:
    """Returns earlier draws: method -> settings of its trials, in order."""
    if not path.exists():
        return {}
    try:
        found = read_json(path, _MOST_BYTES)
        for each in itertools.chain.from_iterable(found.values()):
            config.replace(**each)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        expected = "a JSON object with the drawn trials"
        raise InputError(str(path), expected, quoted(str(error))) from error
    return found


def _write(
    group: RunGroup, found: dict[str, list[Trial]], before: dict[str, dict]
) -> SearchResult:
    """Writes the files of a search, each atomically."""
    best = dict(before)
    for method, trials in found.items():
        number = best_of(trials)
        if number is not None:
            # All searched settings, also of trial 0, because flags may differ later.
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
