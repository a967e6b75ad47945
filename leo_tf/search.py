"""Looks for better settings on the validation episodes: `--mode=search`.

Random search (Bergstra and Bengio, 2012): trials of drawn settings, each a run as any.

METHOD/trial_NN/             the run directory of each trial
settings.json                the best of each method, for --method_settings
results.json, results.md     every trial
search.png                   validation accuracy against each setting
"""

import time

from configs.errors import DivergedError, FlagError
from configs.flags import RunOptions
from data_pipeline.whole_file import write_file
from leo_tf import method_settings, methods, report
from leo_tf.evaluation import Interval
from leo_tf.history import Progress
from leo_tf.json_file import to_json
from leo_tf.search_table import Trial, as_markdown, best_of, picture, print_tables
from leo_tf.several_runs import SeveralRuns
from leo_tf.training import device


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
    found, seconds = {name: [] for name in names}, []
    for place, (name, number) in enumerate(jobs):
        settings = method_settings.draw(name, runs.config.run.seed, number)
        title = methods.METHODS[name].title
        drawn = " ".join(f"--{key}={value}" for key, value in settings.items())
        runs.tell(
            f"{title}, trial {number + 1} of {options.trials}: "
            f"{drawn or 'settings as given'}{_time_left(seconds, len(jobs) - place)}"
        )
        start = time.monotonic()
        trial, status = _tried(runs, name, number, settings)
        if status:
            return status
        seconds.append(time.monotonic() - start)
        found[name].append(trial)
    _write(runs, found)
    print_tables(found)
    print(f"Settings for --method_settings: {runs.path / 'settings.json'}")
    return 0


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


def _time_left(seconds: list[float], left: int) -> str:
    if not seconds:
        return ""
    minutes = sum(seconds) / len(seconds) * left / 60
    return f" (about {minutes:.0f} min left)"


def _tried(runs: SeveralRuns, method: str, number: int, settings) -> tuple[Trial, int]:
    """A trial that is done, and its exit status; one that diverged is a result, too."""
    name = f"{method}/trial_{number:02}"
    try:
        status = runs.train(name, method=method, **settings)
        diverged = False
    except DivergedError as error:
        runs.tell(str(error))
        status, diverged = 0, True
    newest = None if status else runs.checkpoints(name).newest(runs.tell)
    progress = Progress.of(newest) if newest else Progress()
    accuracy = _best_validation(progress)
    steps, seconds = progress.step, progress.seconds
    return Trial(
        settings, accuracy, progress.best_step, steps, seconds, diverged
    ), status


def _best_validation(progress: Progress) -> Interval | None:
    """The accuracy of the best step; None if there was no validation."""
    for record in progress.history:
        if record["step"] == progress.best_step:
            return Interval(record["val_accuracy"], record["val_half_width"])
    return None


def _write(runs: SeveralRuns, found: dict[str, list[Trial]]) -> None:
    """The files of a search, each whole or not at all."""
    best = {name: trials[best_of(trials)].settings for name, trials in found.items()}
    values = {
        "methods": {
            name: {
                "best_trial": best_of(trials),
                "trials": [trial.as_dict() for trial in trials],
            }
            for name, trials in found.items()
        },
        "interval": "95 % over episodes",
        "data": {name: split.digest for name, split in runs.splits.items()},
        "source": runs.splits["val"].source,
        "device": device(),
        "versions": report.versions(),
        "config": runs.config.to_dict(),
    }
    write_file(runs.path / "settings.json", to_json(best))
    write_file(runs.path / "results.json", to_json(values))
    write_file(runs.path / "results.md", as_markdown(found).encode())
    picture(runs.path / "search.png", found)
