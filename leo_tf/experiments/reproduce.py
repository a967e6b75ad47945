"""The published protocol, with several seeds: `--mode=reproduce`.

1. Train on the training classes; the validation classes select the best step.
2. Train on both, for that many steps, once for each seed.
3. Test each of these runs.

selection/                   the run directory of 1
seed_S/                      those of 2
results.json, results.md     what came out, beside what was published
"""

from leo_tf.cli.flags import RunOptions
from leo_tf.configs.presets import PRESETS, Accuracy
from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.errors import FlagError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.job_results import Reproduction, TestedRun
from leo_tf.experiments.evaluate import draws_of
from leo_tf.experiments.run_group import SeveralRuns
from leo_tf.files import to_json, write_file
from leo_tf.methods import registry as methods
from leo_tf.reports import reproduction as report
from leo_tf.reports.results import title as title_of
from leo_tf.reports.table import show

_SELECTION = "selection"
# Settings without which a published number says nothing of a run.
_SAME_TASK = ("dataset_name", "method", "way", "shot", "test_way", "test_shot")
# Settings that change no accuracy, or are the reproduction's own.
_NO_MATTER = ("data_path", "train_on_val", "seed", "preset", "strategy", "jit")
_NO_MATTER += ("keep_checkpoints", "log_every", "non_finite_limit")


def reproduce(options: RunOptions) -> int:
    """Follows the protocol; started again, it goes on where it was.

    Returns:
      0, or 128 plus the signal that stopped it.

    Raises:
      LeoError: for anything the user can mend.
    """
    method = options.config.methods.method
    if not methods.METHODS[method].is_trained:
        raise FlagError("--method", "a method that is trained", method)
    methods.check(options.config)
    runs = SeveralRuns(options, "reproduction")
    runs.tell("Selecting the number of steps on the validation classes.")
    status = runs.train(_SELECTION)
    if status:
        return status
    steps, first = runs.checkpoints(_SELECTION).best().step, runs.config.run.seed
    joined = datasets.load(runs.config.replace(train_on_val=True), ["train", "val"])
    splits = {**runs.splits, "train": joined["train"]}
    seeds = range(first, first + options.seeds)
    for seed in seeds:
        runs.tell(f"Seed {seed}: {steps} steps on training and validation classes.")
        status = runs.train(f"seed_{seed}", splits, **_settings(seed, steps))
        if status:
            return status
    selection = _tested(runs, _SELECTION, "train")
    tested = [
        _tested(runs, f"seed_{seed}", "train+val", **_settings(seed, steps))
        for seed in seeds
    ]
    config = runs.config
    shape = datasets.evaluation_shape(config, runs.splits["test"])
    title = title_of(config.data.dataset_name, shape, config.run.test_samples)
    found = Reproduction(
        title, selection, tested, *_published(config), options.explicit, runs.path
    )
    _write(runs, found, shape)
    show(report.terminal(found))
    print(f"Directory: {runs.path}")
    return 0


def _settings(seed: int, steps: int) -> dict:
    return {"seed": seed, "train_on_val": True, "num_steps": steps}


def _tested(runs: SeveralRuns, name: str, trained_on: str, **settings) -> TestedRun:
    """What a run scores on the test episodes of its seed."""
    run, config = runs.finished(name, **settings), runs.config.replace(**settings)
    count, quiet = config.run.num_test_episodes, runs.options.quiet
    episodes = datasets.evaluation_episodes(config, runs.splits["test"], count)
    learners, draws = {name: run.learner}, draws_of(config)
    with ProgressLine(f"test {name}", count, unit="episodes", quiet=quiet) as line:
        scores = evaluate(
            learners, episodes, line.advance, calibrated=True, draws=draws
        )[name]
    seed, seconds = config.run.seed, run.progress.seconds
    return TestedRun(seed, trained_on, run.best_step, seconds, scores)


def _published(config: Config) -> tuple[tuple[Accuracy, ...], str]:
    """The accuracies a run can be compared with, and what to know then."""
    if not config.preset or not PRESETS[config.preset].expected:
        return (), "No accuracy was published for this data and these settings."
    preset = PRESETS[config.preset]
    differences = preset.config().differences(config)
    names = [name for name, _, _ in differences if name not in _NO_MATTER]
    if any(name in _SAME_TASK for name in names):
        return (), f"What was published for {preset.name} is of other episodes or data."
    if not names:
        return preset.expected, ""
    typed = ", ".join(f"--{name}" for name in names)
    return preset.expected, f"Not as published: {typed}."


def _write(runs: SeveralRuns, found: Reproduction, shape: dict) -> None:
    count = runs.config.run.num_test_episodes
    tested = {"test": shape, "episodes": count}
    values = {**report.as_dict(found), **tested, **runs.facts("test")}
    write_file(runs.path / "results.json", to_json(values))
    write_file(runs.path / "results.md", report.markdown(found).encode())
