"""Several methods on the same test episodes: `--mode=compare`.

results.json, results.md     the table
accuracy.png                 accuracies with their intervals
reliability.png              how sure each method is, and how right
METHOD/                      the run directory of each method

Shapes: B tasks in a batch, N way, K shot, D embedding size.
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from leo_tf.configs.presets import given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import gather
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import CheckpointError, DivergedError
from leo_tf.evaluation.intervals import interval
from leo_tf.evaluation.job_results import Comparison, Row
from leo_tf.evaluation.results import Calibration
from leo_tf.experiments.evaluate import score
from leo_tf.experiments.run_group import RunGroup, open_group
from leo_tf.files import AnyPath
from leo_tf.methods.registry import check, check_is_config, in_table_order, method_named
from leo_tf.methods.settings import DEFAULT_METHODS, of, read
from leo_tf.model.learner import AnyLearner, adapt_and_score
from leo_tf.reports import comparison as report
from leo_tf.reports.figures import save
from leo_tf.reports.results import data as data_in_words

# Tasks whose adaptation is timed, after some that only warm up.
_TIMED, _WARM = 50, 5
# Of the settings of a method's run, what its row says elsewhere.
_NOT_SHOWN = ("method", "test_samples")


def compare(
    config: Config,
    methods: Sequence[str] = DEFAULT_METHODS,
    workdir: AnyPath | None = None,
    *,
    method_settings: Mapping[str, Mapping[str, object]] | str = "",
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> Comparison:
    """Trains each method in a run directory of its own, then tests all of them.

    Calling it again with the same arguments goes on with the method it was at.

    Args:
      config: of all methods.
      methods: their names; differences are to LEO, or without it to the last
        that is not transductive.
      method_settings: method -> settings of its own, or the path of such a file.
      workdir, data, allow_changes, console: as for `train`.

    Returns:
      What the tables say; it is in results.json, results.md and pictures, too.

    Raises:
      Stopped, LeoError: as `search`.
    """
    settings = _settings(config, methods, method_settings)
    group = open_group("compare", config, workdir, data, allow_changes, console)
    diverged = {}
    for number, name in enumerate(settings, start=1):
        title = method_named(name).title
        console.say(f"{title} ({number} of {len(settings)})")
        diverged[name] = _train(group, name, settings[name])
    found = _tested(group, settings, diverged)
    group.write("test", report.as_dict(found), report.markdown(found))
    save(group.path / "accuracy.png", report.accuracies(found))
    save(group.path / "reliability.png", report.reliabilities(found))
    return found


def _settings(
    config: Config, asked: Sequence[str], own: Mapping[str, Mapping[str, object]] | str
) -> dict[str, dict]:
    """Method -> what its run has of its own; all checked before any is trained."""
    check_is_config(config)
    names = in_table_order(asked)
    own = read(own, config)
    drawing = [name for name in names if method_named(name).draws]
    settings: dict[str, dict] = {}
    for name in names:
        settings[name] = {**of(own, name), "method": name}
        if drawing and name not in drawing:  # its means, beside draws of the others
            settings[name]["test_samples"] = 0
        check(config.replace(**settings[name]))
    return settings


def _train(group: RunGroup, name: str, settings: Mapping[str, Any]) -> bool:
    """Trains one method; returns whether it diverged after its best validation."""
    try:
        group.train(name, **settings)
        return False
    except DivergedError as error:
        where = f"{method_named(name).title}, {error.where}"
        try:
            best = group.checkpoints(name).best()
        except CheckpointError:
            hint = f"Leave {name} out of --methods, or give it other settings by "
            hint += "--method_settings in another --workdir; what is trained stays."
            parts = where, error.expected, error.received, hint
            raise DivergedError(*parts) from error
        best_is = f"its best, of step {best.step}, is tested."
        group.console.say(f"{where}: diverged; {best_is}")
        return True


def _tested(
    group: RunGroup, settings: Mapping[str, Mapping], diverged: Mapping[str, bool]
) -> Comparison:
    """Everything the tables say, of all methods on the same test episodes."""
    config, split = group.config, group.splits["test"]
    runs = {name: group.finished(name) for name in settings}
    learners = {name: run.learner for name, run in runs.items()}
    scores = score(learners, config, split, group.console)
    inductive = [name for name in runs if not method_named(name).transductive]
    reference = "leo" if "leo" in runs else [*runs, *inductive][-1]
    rows = []
    for name, run in runs.items():
        group.console.say(f"Timing the adaptation of {method_named(name).title}.")
        difference = scores[name].accuracy - scores[reference].accuracy
        row = Row(
            name=name,
            accuracy=interval(scores[name].accuracy),
            difference=None if name == reference else interval(difference),
            calibration=Calibration.of(scores[name]),
            parameters=sum(math.prod(v.shape) for v in run.learner.trainable_variables),
            best_step=run.checkpoints.best().step,
            steps=run.state.step,
            diverged=diverged[name],
            seconds_trained=run.state.seconds,
            seconds_to_adapt=adaptation_seconds(run.learner, config, split),
            chosen=run.chosen,
            share_not_finite=run.state.share_not_finite,
            validation=run.state.best_validation,
            settings={k: v for k, v in settings[name].items() if k not in _NOT_SHOWN},
        )
        rows.append(row)
    return Comparison(
        rows,
        reference,
        data_in_words(config),
        dataset.evaluation_shape(config, split),
        config.run.num_test_episodes,
        config.run.test_samples,
        given=given(config),
        selects=not config.data.train_on_val,
        directory=group.path,
    )


def adaptation_seconds(learner: AnyLearner, config: Config, split: Split) -> float:
    """Median time of adapting to one task, in a graph; one task after the other.

    A method that answers queries together is timed until it has answered them.
    """
    episodes = dataset.evaluation_episodes(config, split, _TIMED + _WARM)

    @tf.function(autograph=False)
    def adapt(episode):
        if hasattr(learner, "answer"):
            return adapt_and_score(learner, episode)[1]
        return learner.adapt(episode.support_inputs, episode.support_labels).classifier

    seconds = []
    for rows in episodes.rows.unbatch().batch(1):
        episode = gather(split.table.features, rows)
        start = time.perf_counter()
        adapt(episode).numpy()  # waits
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARM:])
