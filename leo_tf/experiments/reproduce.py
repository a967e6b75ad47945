"""The published protocol, with several seeds: `--mode=reproduce`.

1. Train on the training classes; the validation classes select the best step.
2. Train on both, for that many steps, once for each seed.
3. Test each of these runs.

selection/                   the run directory of 1
seed_S/                      those of 2
results.json, results.md     what came out, beside what was published
"""

from leo_tf.configs import rules
from leo_tf.configs.presets import PRESETS, Accuracy, given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import FlagError
from leo_tf.evaluation.job_results import Reproduction, TestedRun
from leo_tf.experiments.evaluate import score
from leo_tf.experiments.run_group import RunGroup, open_group
from leo_tf.files import AnyPath, to_json, write_file
from leo_tf.methods.registry import check, method_of
from leo_tf.reports import reproduction as report
from leo_tf.reports.results import title

DEFAULT_SEEDS = 5
_SELECTION = "selection"
# Settings without which a published number says nothing of a run.
_SAME_TASK = ("dataset_name", "method", "way", "shot", "test_way", "test_shot")
# Settings that change no accuracy, or are the reproduction's own.
_NO_MATTER = (
    *("data_path", "train_on_val", "seed", "preset", "strategy", "jit"),
    *("keep_checkpoints", "log_every", "non_finite_limit"),
)


def reproduce(
    config: Config,
    workdir: AnyPath | None = None,
    *,
    seeds: int = DEFAULT_SEEDS,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> Reproduction:
    """Follows the protocol; called again with the same arguments, it goes on.

    Args:
      config: of all runs.
      workdir: the directory of the job; None for one named by the data.
      seeds: how many runs to train for the best number of steps, with the seeds from
        `config.run.seed` on.
      data, allow_changes, console: as for `train`.

    Returns:
      What came out, beside what was published; in results.json and results.md, too.

    Raises:
      Stopped: if a signal stopped it; what was trained is saved.
      LeoError: for anything the user can mend.
    """
    seeds = rules.integer(1).checked(seeds, "--seeds")
    check(config)
    method = config.methods.method
    if not method_of(config).is_trained:
        raise FlagError("--method", "a method that is trained", method)
    group = open_group(
        "reproduce",
        config,
        workdir,
        data=data,
        allow_changes=allow_changes,
        console=console,
    )
    config, first = group.config, group.config.run.seed
    console.say("Selecting the number of steps on the validation classes.")
    group.train(_SELECTION)
    steps = group.checkpoints(_SELECTION).best().step
    joined = dataset.load(
        config.replace(train_on_val=True), ["train", "val"], data=data, console=console
    )
    splits = {**group.splits, "train": joined["train"]}
    seed_range = range(first, first + seeds)
    for seed in seed_range:
        console.say(f"Seed {seed}: {steps} steps on training and validation classes.")
        group.train(f"seed_{seed}", splits, **_settings(seed, steps))
    found = Reproduction(
        _title(group),
        _tested(group, _SELECTION, "train"),
        [
            _tested(group, f"seed_{seed}", "train+val", **_settings(seed, steps))
            for seed in seed_range
        ],
        *_published(config),
        given=given(config),
        directory=group.path,
    )
    _write(group, found)
    return found


def _title(group: RunGroup) -> str:
    config = group.config
    shape = dataset.evaluation_shape(config, group.splits["test"])
    return title(config.data.dataset_name, shape, config.run.test_samples)


def _settings(seed: int, steps: int) -> dict:
    return {"seed": seed, "train_on_val": True, "num_steps": steps}


def _tested(group: RunGroup, name: str, trained_on: str, **settings) -> TestedRun:
    """What a run scores on the test episodes of its seed."""
    run, config = group.finished(name), group.config.replace(**settings)
    learners, split = {name: run.learner}, group.splits["test"]
    scores = score(learners, config, split, group.console, f"test {name}")[name]
    best, seconds = run.checkpoints.best().step, run.state.seconds
    return TestedRun(config.run.seed, trained_on, best, seconds, scores)


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


def _write(group: RunGroup, found: Reproduction) -> None:
    shape = dataset.evaluation_shape(group.config, group.splits["test"])
    tested = {"test": shape, "episodes": group.config.run.num_test_episodes}
    values = {**report.as_dict(found), **tested, **group.metadata("test")}
    write_file(group.path / "results.json", to_json(values))
    write_file(group.path / "results.md", report.markdown(found).encode())
