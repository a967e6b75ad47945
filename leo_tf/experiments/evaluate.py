"""Tests what a run directory holds, or what training has just made."""

import os
import shlex
import sys

import numpy as np

from leo_tf.cli.flags import RunOptions, dataset_of
from leo_tf.configs.schema import EMBEDDED_DATASET, Config
from leo_tf.console import ProgressLine, say
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import gather
from leo_tf.errors import CheckpointError, FlagError, InputError, shown
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.posterior import Draws
from leo_tf.evaluation.results import BASELINE, Results, results_of
from leo_tf.methods.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import METHODS, build
from leo_tf.model.learner import Learner, adapt_and_score
from leo_tf.reports import figures, mosaics
from leo_tf.reports import results as report
from leo_tf.reports.table import show
from leo_tf.runs.checkpoints import Checkpoint, Checkpoints, restore
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.training_state import Progress

# What `--mode=evaluate` may change of the run's own configuration.
_DATA_FIELDS = ("data_path", "dataset_name", "embedding_crop")
# What variables a method has, and of which sizes.
_SHAPES = ("method", "dtype", "num_latents", "random_prior", "way")
_EVALUATION_FIELDS = (
    *_DATA_FIELDS,
    "num_test_episodes",
    "test_samples",
    "test_way",
    "test_shot",
    "test_num_query",
)


def evaluate_run(options: RunOptions) -> Results:
    """Tests the best checkpoint of a run directory, and writes nothing there."""
    directory = RunDirectory(options.workdir)
    trained = directory.config()
    config = _evaluation_config(trained, options.explicit)
    _tell_of_choices(config, trained, options.quiet)
    best = Checkpoints(directory.path).best()  # is there one? Else load no data
    _check_shapes(config, best, directory)
    split = datasets.load(config, ["test"], quiet=options.quiet)["test"]
    say(str(split), options.quiet)
    learner = build(config, split.embedding_size)
    best = Checkpoints(directory.path).best()  # now: a training may have moved on
    _check_test_data(split, best, options)
    _restore(best, learner)
    results = _test(config, split, learner, best, options)
    show(report.terminal(results))
    return results


def test_trained(
    config: Config,
    split: Split,
    learner: Learner,
    directory: RunDirectory,
    progress: Progress,
    facts: dict,
    options: RunOptions,
) -> None:
    """Tests the best checkpoint; writes results.json and the picture of an episode.

    Args:
      config: of the run.
      split: test.
      learner: the method; it gets the variables of the best checkpoint.
      directory: of the run.
      progress: of the training.
      facts: what the checkpoints' manifests hold besides.
      options: what was asked for.
    """
    best = Checkpoints(directory.path).best()
    _restore(best, learner)
    results = _test(config, split, learner, best, options)
    more = {
        "test": datasets.evaluation_shape(config, split),
        "step": best.step,
        "steps_trained": progress.step,
        "steps_not_finite": progress.non_finite,
        "seconds_trained": round(progress.seconds, 1),
        "seed": config.run.seed,
        "source": split.source,
        **{key: facts[key] for key in ("data", "device", "jit", "versions", "config")},
    }
    directory.write_json("results.json", report.as_json(results, **more))
    if split.images is not None:
        _draw_episode(config, split, learner, directory.path / "episode.png")
    show(report.terminal(results))
    print(f"Run directory: {directory.path}")
    if METHODS[config.methods.method].is_trained:
        python = shlex.quote(os.path.relpath(sys.executable))
        logdir = shlex.quote(f"--logdir={directory.path}")
        print(f"TensorBoard:   {python} -m tensorboard.main {logdir}")


def _restore(checkpoint, learner: Learner):
    variables = {v.path: v.value for v in learner.trainable_variables}
    restore(checkpoint, variables)


def _test(config, split, learner, best, options) -> Results:
    count = config.run.num_test_episodes
    # The method first: where it is nearest centroid itself, it is not tested twice.
    learners = {config.methods.method: learner}
    learners.setdefault(BASELINE, NearestCentroid())
    dataset = datasets.evaluation_episodes(config, split, count)
    with ProgressLine("test", count, unit="episodes", quiet=options.quiet) as line:
        scores = evaluate(
            learners, dataset, line.advance, calibrated=True, draws=draws_of(config)
        )
    return results_of(scores, _title(config, split, best.step))


def draws_of(config: Config) -> Draws | None:
    """What predictions are averaged over in a test, if anything."""
    run = config.run
    return Draws(run.test_samples, run.seed) if run.test_samples else None


def _draw_episode(config, split: Split, learner, path):
    """Draws the first test episode with the method's and nearest centroid's answers."""
    [rows] = datasets.evaluation_episodes(config, split, 1).rows
    episode = gather(split.table.features, rows)
    learners = {METHODS[config.methods.method].title: learner}
    if config.methods.method != BASELINE:
        learners["centroid"] = NearestCentroid()
    answers = {
        name: np.argmax(adapt_and_score(each, episode)[1][0], axis=-1)  # [N, Q]
        for name, each in learners.items()
    }
    picture = mosaics.episode(
        [split.class_names[c] for c in rows.classes[0]],
        support=split.images[rows.support[0, :, 0]],
        query=split.images[rows.query[0]],
        answers=answers,
    )
    figures.save(path, picture)


def _title(config, split, step):
    shape = datasets.evaluation_shape(config, split)
    return report.title(config.data.dataset_name, shape, config.run.test_samples, step)


def _tell_of_choices(config: Config, trained: Config, quiet: bool):
    """Says that what a run chose for its own episodes is used for others."""
    chosen = METHODS[config.methods.method].chosen
    mine, theirs = config.episodes, trained.episodes
    way, shot = theirs.evaluation_way, theirs.evaluation_shot
    if chosen and (mine.evaluation_way, mine.evaluation_shot) != (way, shot):
        names = " and ".join(f"--{name}" for name in chosen)
        say(
            f"{names}: as chosen for {way}-way {shot}-shot; --mode=compare chooses "
            "anew for other episodes.",
            quiet,
        )


def _check_shapes(config: Config, best: Checkpoint, directory: RunDirectory):
    """Variables of a size that no checkpoint has are not even made."""
    where = f"{best.path}: `config`"
    try:
        trained = Config.from_dict(best.fact("config", dict), where)
    except InputError as error:
        raise CheckpointError(error.where, error.expected, error.received) from error
    for name, theirs, mine in trained.differences(config):
        if name in _SHAPES:
            where = f"{directory.path}/config.json: `{name}`"
            raise InputError(where, f"{theirs}, as in {best.path}", shown(mine))


def _check_test_data(split: Split, best: Checkpoint, options: RunOptions):
    """Other data than the run's own is tested only if that was asked for."""
    size = best.fact("embedding_size", int)
    if split.embedding_size != size:
        where = f"{split.source}: `embeddings`"
        raise InputError(where, f"D = {size}, as trained", f"{split.embedding_size}")
    digest = best.fact("data", dict).get("test")
    if split.digest == digest:
        return
    if not any(field in options.explicit for field in _DATA_FIELDS):
        raise InputError(
            split.source,
            f"the run's own test data, of digest {shown(digest)}",
            f"data of digest {shown(split.digest)}",
            "Give --data_path to test on other data.",
        )
    say("This is not the test data of the run.", options.quiet)


def _evaluation_config(trained: Config, explicit) -> Config:
    """The run's configuration with what was typed; hyperparameters must agree.

    The release wants a run's flags repeated to evaluate it, so that is allowed.
    """
    changes = {f: explicit[f] for f in _EVALUATION_FIELDS if f in explicit}
    if changes.get("dataset_name") == EMBEDDED_DATASET:
        changes.setdefault("data_path", "")  # it is in no directory
    config = trained.replace(**changes)
    if "data_path" in explicit and "dataset_name" not in explicit:
        config = config.replace(dataset_name=dataset_of(config.data))
    have = config.flat()
    for field, value in explicit.items():
        if have[field] != value:
            hint = "Only the test can be changed now: its data, episodes and shape."
            raise FlagError(
                f"--{field}", f"{have[field]}, as trained", str(value), hint
            )
    return config
