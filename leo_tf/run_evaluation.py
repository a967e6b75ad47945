"""Tests what a run directory holds, or what training has just made."""

from configs.errors import FlagError, InputError, shown
from configs.flags import RunOptions, dataset_of
from configs.schema import EMBEDDED_DATASET, Config
from leo_tf import datasets, report
from leo_tf.baselines.protonet import NearestCentroid
from leo_tf.checkpoints import Checkpoints, restore
from leo_tf.datasets import Split
from leo_tf.evaluation import evaluate
from leo_tf.model import LEO
from leo_tf.progress import ProgressLine, say
from leo_tf.run_directory import RunDirectory

# What `--mode=evaluate` may change of the run's own configuration.
_DATA_FIELDS = ("data_path", "dataset_name", "embedding_crop")
_EVALUATION_FIELDS = (
    *_DATA_FIELDS,
    "num_test_episodes",
    "test_way",
    "test_shot",
    "test_num_query",
)


def evaluate_run(options: RunOptions) -> report.Results:
    """Tests the best checkpoint of a run directory, and writes nothing there."""
    directory = RunDirectory(options.workdir)
    config = _evaluation_config(directory.config(), options.explicit)
    Checkpoints(directory.path).best()  # is there one? Else do not load the data
    split = datasets.load(config, ["test"], quiet=options.quiet)["test"]
    say(str(split), options.quiet)
    leo = build(config, split)
    best = Checkpoints(directory.path).best()  # now: a training may have moved on
    _check_test_data(split, best.manifest, options)
    restore(best, {variable.path: variable.value for variable in leo.variables})
    results = test(config, split, leo, options)
    report.print_table(results, title(config, split, best.step))
    return results


def build(config: Config, split: Split) -> LEO:
    """LEO with initial variables for the embeddings of a split."""
    leo = LEO(config.model, seed=config.run.seed, dtype=config.data.dtype)
    leo.build([None, None, None, split.embedding_size])
    return leo


def test(config, split, leo, options) -> report.Results:
    count = config.run.num_test_episodes
    learners = {report.LEO_NAME: leo, report.CENTROID_NAME: NearestCentroid()}
    dataset = datasets.evaluation_episodes(config, split, count)
    with ProgressLine("test", count, unit="episodes", quiet=options.quiet) as line:
        return report.results_of(evaluate(learners, dataset, line.advance))


def title(config, split, step):
    shape = datasets.evaluation_shape(config, split)
    return (
        f"{config.data.dataset_name}, test: {shape['way']}-way {shape['shot']}-shot, "
        f"{shape['num_query']} queries a class, step {step}"
    )


def _check_test_data(split: Split, manifest: dict, options: RunOptions):
    """Other data than the run's own is tested only if that was asked for."""
    size = manifest["embedding_size"]
    if split.embedding_size != size:
        where = f"{split.source}: `embeddings`"
        raise InputError(where, f"D = {size}, as trained", f"{split.embedding_size}")
    if split.digest == manifest["data"]["test"]:
        return
    if not any(field in options.explicit for field in _DATA_FIELDS):
        raise InputError(
            split.source,
            f"the run's own test data, of digest {shown(manifest['data']['test'])}",
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
