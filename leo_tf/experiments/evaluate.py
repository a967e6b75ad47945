"""Tests the best checkpoint of a run directory, also at the end of training."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from leo_tf.configs.schema import EMBEDDED_DATASET, Config, unknown
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.feature_files import made_by
from leo_tf.data_pipeline.pipeline import gather
from leo_tf.data_pipeline.release_layout import dataset_of
from leo_tf.data_pipeline.sources import SPLITTING, Data
from leo_tf.errors import CheckpointError, FlagError, InputError, quoted
from leo_tf.evaluation.confidence import Confidence
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.evaluate import evaluate as evaluate_methods
from leo_tf.evaluation.posterior import Draws
from leo_tf.evaluation.results import (
    BASELINE,
    Calibration,
    Results,
    remark,
    results_of,
)
from leo_tf.experiments.open_set import Fitted, check_open_set, score_open
from leo_tf.files import AnyPath
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import method_named, method_of
from leo_tf.methods.transform_fitting import check_fits
from leo_tf.model.learner import AnyLearner, Learner, adapt_and_score, takes_memory
from leo_tf.reports import figures, mosaics
from leo_tf.reports import results as report
from leo_tf.runs.manifest import Checkpoint
from leo_tf.runs.run import Run, load_run
from leo_tf.runs.training_state import TrainingState

# Settings of the run that `evaluate` may change.
_DATA_FIELDS = ("data_path", "dataset_name", "embedding_crop")
_EVALUATION_FIELDS = (
    *(*_DATA_FIELDS, "num_test_episodes", "test_samples"),
    *("test_way", "test_shot", "test_num_query", "query_dirichlet"),
    *("drop_small_classes", "trust_data_files"),
    *(name for name in SPLITTING if name != "val_classes"),
)
# Settings that variables and their sizes depend on.
_SHAPES = ("method", "dtype", "num_latents", "random_prior", "way")


def evaluate(
    workdir: AnyPath,
    *,
    data: Data | None = None,
    open_set: bool = False,
    console: Console = SILENT,
    **changes: Any,
) -> Results:
    """Tests the best checkpoint of a run directory. Writes nothing there.

    Args:
      workdir, console: as for `train`.
      open_set: also test how well it detects queries of other classes, and its
        prediction sets.
      data: other test data, from `load_data`; None for the run's own.
      changes: changed settings of the test: its data, `test_way`, `test_shot`,
        `test_num_query`, `query_dirichlet`, `num_test_episodes`, `test_samples`,
        `drop_small_classes`. Other settings must have the values of training.

    Returns:
      Accuracies of the method and of nearest centroid on the same episodes.

    Raises:
      LeoError: for any error that the user can fix.
    """
    run = load_run(workdir, console)
    if data is not None:  # its splits are made, and only its test is used
        changes |= {n: v for n, v in data.settings().items() if n != "val_classes"}
    trained, run.config = run.config, _evaluation_config(run.config, changes)
    _say_choices_are_others(run, trained)
    _check_shapes(run, run.checkpoints.best())  # raises before loading data
    split = dataset.load(run.config, ["test"], data=data, console=console)["test"]
    console.say(str(split))
    _check_test_data(run, split, run.checkpoints.best(), changes)
    best = run.restore_best()  # may be newer if a training still runs
    if run.transform is not None:
        check_fits(run.transform, split.table)
    if open_set:
        check_open_set(run.config, split)
        if run.confidence(best) is None:
            hint = "Repeat the command that trained it."
            expected = "a run that was fitted to validation episodes"
            raise FlagError("--open_set", expected, "one that was not", hint)
    _say_fitted_to_others(run, best, trained)
    return _test(run, split, best, TrainingState.of(best).share_not_finite, open_set)


def test_run(run: Run, split: Split) -> None:
    """Tests the best checkpoint of an open run. Writes results.json and episode.png."""
    best, state = run.restore_best(), run.state
    run.results = _test(run, split, best, state.share_not_finite)
    if remark(state.share_not_finite):
        many = f"{state.non_finite} of {state.step} training steps were non-finite."
        run.console.warn(f"{many} {state.advice(run.config)}")
    more = {
        "test": dataset.evaluation_shape(run.config, split),
        "step": best.step,
        "steps_trained": state.step,
        "steps_not_finite": state.non_finite,
        "share_not_finite": state.share_not_finite,
        "seconds_trained": round(state.seconds, 1),
        "seed": run.config.run.seed,
        "source": split.source,
    }
    if (mix := run.mix(best)) is not None:
        more["ensemble"] = mix.as_dict()
    for key in ("data", "device", "jit", "versions", "config"):
        more[key] = run.metadata[key]
    run.directory.write_json("results.json", report.as_json(run.results, **more))
    by_class = run.config.episodes.query_dirichlet is None  # as the picture needs
    if split.images is not None and by_class:
        _draw_episode(run, split, split.images)


def score(
    learners: Mapping[str, AnyLearner],
    config: Config,
    split: Split,
    console: Console,
    title: str = "test",
    fitted: Fitted = MappingProxyType({}),
) -> dict[str, EpisodeScores]:
    """Scores methods on the test episodes of a configuration, calibration included.

    `fitted` has the confidence fitted to each method, if any. Temperatures were fitted
    without draws of latents and weights, so they are not applied with draws.
    """
    run, count = config.run, config.run.num_test_episodes
    draws = Draws(run.test_samples, run.seed) if run.test_samples else None
    together = any(takes_memory(learner) for learner in learners.values())
    episodes = dataset.evaluation_episodes(config, split, count, together)
    temperatures = {
        name: known.temperature
        for name, known in fitted.items()
        if known and not (draws and getattr(learners[name], "has_posterior", False))
    }
    with console.progress(title, count, unit="episodes") as line:
        options: Any = {"calibrated": True, "draws": draws}
        options["temperatures"] = temperatures
        found = evaluate_methods(learners, episodes, line.advance, **options)
    for name, scores in found.items():
        nll: Any = scores.nll
        if bad := np.count_nonzero(~np.isfinite(nll)):
            text = f"scores are NaN or infinite in {bad} of {count} test episodes"
            console.warn(f"{name}: {text}, whose answers are wrong")
    return found


def calibration(scores: EpisodeScores, fitted: Confidence | None) -> Calibration:
    """Summarises a method's calibration, with and without its temperature."""
    return Calibration.of(scores, fitted.temperature if fitted else None)


def _test(
    run: Run, split: Split, best: Checkpoint, share: float, open_set: bool = False
) -> Results:
    config = run.config
    # The method comes first, so that nearest centroid is not tested twice.
    learners: dict[str, Learner] = {config.methods.method: run.learner}
    learners.setdefault(BASELINE, _beside(run))
    name, known = config.methods.method, run.confidence(best)
    mine = {name: known}
    scores = score(learners, config, split, run.console, fitted=mine)
    found = {name: run.learner}, config, split, run.console, mine, open_set
    others = score_open(*found).get(name)
    shape, samples = dataset.evaluation_shape(config, split), config.run.test_samples
    title = report.title(report.data(config), shape, samples, best.step)
    if (mix := run.mix(best)) is not None:
        title += f", with {100 * mix.share:.0f} % of {config.methods.ensemble}"
    temperature = known.temperature if known else None
    return results_of(scores, title, share, temperature, others)


def _beside(run: Run) -> Learner:
    """Returns nearest centroid on the run's transformed features.

    If the method includes its own transform, the features are not transformed, because
    otherwise both methods might be the same.
    """
    made_of_one = method_of(run.config).feature_transform
    return NearestCentroid() if made_of_one else run.on_features(NearestCentroid())


def _draw_episode(run: Run, split: Split, images: np.ndarray) -> None:
    """Draws the first test episode with the method's and nearest centroid's answers."""
    [rows] = dataset.evaluation_episodes(run.config, split, 1).rows
    episode = gather(split.table, rows)
    name = run.config.methods.method
    learners: dict[str, Learner] = {method_named(name).title: run.learner}
    if name != BASELINE:
        learners["centroid"] = _beside(run)
    answers = {
        title: np.argmax(adapt_and_score(learner, episode)[1][0], axis=-1)  # [N, Q]
        for title, learner in learners.items()
    }
    names = [split.class_names[c] for c in rows.classes[0]]
    support, query = images[rows.support[0, :, 0]], images[rows.query[0]]
    picture = mosaics.episode(names, support=support, query=query, answers=answers)
    figures.save(run.path / "episode.png", picture)


def _say_choices_are_others(run: Run, trained: Config) -> None:
    """Tells the user that settings were tuned for other episodes."""
    chosen = method_of(trained).chosen
    mine, theirs = (
        (each.evaluation_way, each.evaluation_shot, each.query_dirichlet)
        for each in (run.config.episodes, trained.episodes)
    )
    if chosen and mine != theirs:
        names = " and ".join(f"--{name}" for name in chosen)
        way, shot, dirichlet = theirs
        episodes = f"{way}-way {shot}-shot"
        if mine[2] != dirichlet:
            episodes += f", {_kind(dirichlet)}"
        text = f"{names}: tuned on {episodes} episodes, not on those of this test"
        run.console.say(f"{text}; --mode=compare tunes anew.")


def _kind(dirichlet: float | None) -> str:
    return "balanced" if dirichlet is None else f"Dirichlet {dirichlet:g}"


def _say_fitted_to_others(run: Run, best: Checkpoint, trained: Config) -> None:
    """Tells the user that the confidence was fitted to other episodes."""
    known, shape = run.confidence(best), run.config.episodes
    # Each query alone, its class's share makes next to no difference.
    transductive = method_of(run.config).transductive
    dirichlet = trained.episodes.query_dirichlet
    differs = transductive and shape.query_dirichlet != dirichlet
    sizes = shape.evaluation_way, shape.evaluation_shot
    if known is not None and (differs or (known.way, known.shot) != sizes):
        parts = (
            "Temperature and sets" if differs else "Temperature, thresholds and sets"
        )
        if run.config.methods.ensemble != "none":
            parts += " and the ensemble's share"
        episodes = f"{known.way}-way {known.shot}-shot"
        if differs:
            episodes += f" {_kind(dirichlet)}"
        run.console.say(f"{parts}: fitted to {episodes} validation episodes.")


def _check_shapes(run: Run, best: Checkpoint) -> None:
    """Checks sizes against the checkpoint before variables are created."""
    where = f"{best.path}: `config`"
    try:
        trained = Config.from_dict(best.entry("config", dict), where)
    except InputError as error:
        raise CheckpointError(error.where, error.expected, error.received) from error
    for name, theirs, mine in trained.differences(run.config):
        if name in _SHAPES:
            where = f"{run.path}/config.json: `{name}`"
            raise InputError(where, f"{theirs}, as in {best.path}", quoted(mine))


def _check_test_data(run: Run, split: Split, best: Checkpoint, changes) -> None:
    """Refuses test data other than the run's own, unless it was requested."""
    size = best.entry("embedding_size", int)
    if split.embedding_size != size:
        where = f"{split.source}: `embeddings`"
        raise InputError(where, f"D = {size}, as trained", f"{split.embedding_size}")
    digest = best.entry("data", dict).get("test")
    if split.digest == digest:
        return
    if not any(field in changes for field in _DATA_FIELDS):
        expected = f"the run's own test data, of digest {quoted(digest)}"
        received = f"data of digest {quoted(split.digest)}"
        hint = "Give --data_path to test on other data."
        raise InputError(split.source, expected, received, hint)
    made = best.manifest.get("embedding") or {}
    now = made_by(run.config.data.data_path) or made
    for name, value in made.items():
        if name != "backbone" and value != now[name]:
            where = f"{split.source}: `{name}` of its embedding.json"
            expected = f"{quoted(value)}, by {made['backbone']}, as trained"
            received = f"{quoted(now[name])}, by {now['backbone']}"
            raise InputError(where, expected, received)
    run.console.say("This is not the test data of the run.")


def _evaluation_config(trained: Config, changes) -> Config:
    """Returns the run's configuration with the changes. Hyperparameters must agree.

    The release requires a run's flags for evaluation, so repeating them is allowed.
    """
    allowed = {f: changes[f] for f in _EVALUATION_FIELDS if f in changes}
    if allowed.get("dataset_name") == EMBEDDED_DATASET:
        allowed.setdefault("data_path", "")  # embedded data has no path
    config = trained.replace(**allowed)
    if "data_path" in changes and "dataset_name" not in changes:
        config = config.replace(dataset_name=dataset_of(config.data))
    have = config.flat()
    for field, value in changes.items():
        if field not in have:
            raise unknown(field)
        if field == "sklearn_parameters" and value:  # a path: compare its content
            value = Config().replace(sklearn_parameters=value).flat()[field]
        if have[field] != value:
            hint = "Only the test can be changed: its data, episodes and shape."
            expected = f"{quoted(have[field])}, as trained"
            raise FlagError(f"--{field}", expected, quoted(value), hint)
    return config
