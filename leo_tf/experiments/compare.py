"""Several methods on the same test episodes: `--mode=compare`.

results.json, results.md     the table
accuracy.png                 accuracies with their intervals
reliability.png              how sure each method is, and how right
METHOD/                      the run directory of each method

Shapes: B tasks in a batch, N way, K shot, D embedding size.
"""

import statistics
import time

import numpy as np
import tensorflow as tf

from leo_tf.cli.flags import RunOptions
from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.errors import CheckpointError, DivergedError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.intervals import interval
from leo_tf.evaluation.job_results import Comparison, Row
from leo_tf.evaluation.results import Calibration
from leo_tf.experiments.evaluate import draws_of
from leo_tf.experiments.run_group import FinishedRun, SeveralRuns
from leo_tf.files import to_json, write_file
from leo_tf.methods import registry as methods
from leo_tf.methods import settings as method_settings
from leo_tf.model.learner import Learner
from leo_tf.reports import comparison as report
from leo_tf.reports.figures import save
from leo_tf.reports.table import show

# Tasks whose adaptation is timed, after some that only warm up.
_TIMED, _WARM = 50, 5
# Of the settings of a method's run, what its row says elsewhere.
_NOT_SHOWN = ("method", "test_samples")


def compare(options: RunOptions) -> int:
    """Trains each method in a run directory of its own, then tests all of them.

    Started again, it goes on with the method it was at.

    Returns:
      0, or 128 plus the signal that stopped it.

    Raises:
      LeoError: for anything the user can mend.
    """
    settings = _settings(options)
    runs, diverged = SeveralRuns(options, "comparison"), {}
    for number, name in enumerate(settings, start=1):
        runs.tell(f"{methods.METHODS[name].title} ({number} of {len(settings)})")
        status, diverged[name] = _train(runs, name, settings[name])
        if status:
            return status
    finished = {name: runs.finished(name, **own) for name, own in settings.items()}
    comparison = _tested(runs, finished, settings, diverged)
    _write(runs, comparison)
    show(report.terminal(comparison))
    print(f"Directory: {runs.path}")
    return 0


def _settings(options: RunOptions) -> dict[str, dict]:
    """Method -> what its run has of its own; all checked before any is trained."""
    asked = options.methods.split(",")
    names = [name for name in methods.METHODS if name in asked]
    own = method_settings.read(options.method_settings, options.config)
    drawing = [name for name in names if methods.METHODS[name].draws]
    settings = {}
    for name in names:
        settings[name] = {**method_settings.of(own, name), "method": name}
        if drawing and name not in drawing:  # its means, beside draws of the others
            settings[name]["test_samples"] = 0
        methods.check(options.config.replace(**settings[name]))
    return settings


def _train(runs: SeveralRuns, name: str, settings: dict) -> tuple[int, bool]:
    """Trains one method; its exit status, and whether it diverged after its best.

    Raises:
      DivergedError: naming the method, if there was no validation before.
    """
    try:
        return runs.train(name, **settings), False
    except DivergedError as error:
        where = f"{methods.METHODS[name].title}, {error.where}"
        try:
            best = runs.checkpoints(name).best()
        except CheckpointError:
            hint = (
                f"Leave {name} out of --methods, or give it other settings by "
                "--method_settings in another --workdir; what is trained stays."
            )
            parts = where, error.expected, error.received, hint
            raise DivergedError(*parts) from error
        runs.tell(f"{where}: diverged; its best, of step {best.step}, is tested.")
        return 0, True


def _tested(
    runs: SeveralRuns,
    finished: dict[str, FinishedRun],
    settings: dict[str, dict],
    diverged: dict[str, bool],
) -> Comparison:
    """Everything the tables say, of all methods on the same test episodes."""
    config, split = runs.config, runs.splits["test"]
    count, quiet = config.run.num_test_episodes, runs.options.quiet
    learners = {name: run.learner for name, run in finished.items()}
    episodes = datasets.evaluation_episodes(config, split, count)
    draws = draws_of(config)
    with ProgressLine("test", count, unit="episodes", quiet=quiet) as line:
        scores = evaluate(
            learners, episodes, line.advance, calibrated=True, draws=draws
        )
    reference = "leo" if "leo" in finished else [*finished][-1]
    rows = []
    for name, run in finished.items():
        runs.tell(f"Timing the adaptation of {methods.METHODS[name].title}.")
        difference = scores[name].accuracy - scores[reference].accuracy
        row = Row(
            name=name,
            accuracy=interval(scores[name].accuracy),
            difference=None if name == reference else interval(difference),
            calibration=Calibration.of(scores[name]),
            parameters=run.parameters,
            best_step=run.best_step,
            steps=run.progress.step,
            diverged=diverged[name],
            seconds_trained=run.progress.seconds,
            seconds_to_adapt=adaptation_seconds(run.learner, config, split),
            chosen=run.chosen,
            settings={k: v for k, v in settings[name].items() if k not in _NOT_SHOWN},
        )
        rows.append(row)
    shape = datasets.evaluation_shape(config, split)
    return Comparison(
        rows,
        reference,
        config.data.dataset_name,
        shape,
        count,
        config.run.test_samples,
        given=runs.options.explicit,
        selects=not config.data.train_on_val,
        directory=runs.path,
    )


def adaptation_seconds(learner: Learner, config: Config, split: Split) -> float:
    """Median time of adapting to one task, in a graph; one task after the other."""
    dataset = datasets.evaluation_episodes(config, split, _TIMED + _WARM)
    rows = np.concatenate([batch.support for batch in dataset.rows])  # [B, N, K]
    shape = rows.shape[1:]
    labels = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], [1, *shape])

    @tf.function(autograph=False)
    def adapt(support):
        return learner.adapt(support, labels).classifier

    seconds = []
    for support in rows:
        support = tf.gather(split.table.features, support[np.newaxis])  # [1, N, K, D]
        start = time.perf_counter()
        adapt(support).numpy()  # waits
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARM:])


def _write(runs: SeveralRuns, comparison: Comparison) -> None:
    """The files of a comparison, each whole or not at all."""
    values = {**report.as_dict(comparison), **runs.facts("test")}
    write_file(runs.path / "results.json", to_json(values))
    write_file(runs.path / "results.md", report.markdown(comparison).encode())
    save(runs.path / "accuracy.png", report.accuracies(comparison))
    save(runs.path / "reliability.png", report.reliabilities(comparison))
