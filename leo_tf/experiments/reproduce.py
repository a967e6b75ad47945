"""Follows the published protocol with several seeds: `--mode=reproduce`.

1. Train on the training classes; the validation classes select the best step.
2. Train on both, for that many steps, once for each seed.
3. Test each of these runs.

selection/                   run directory of 1
seed_S/                      run directories of 2
results.json, results.md     results, beside the published ones
"""

from collections.abc import Mapping
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.presets import PRESETS, Accuracy, given
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import FlagError
from leo_tf.evaluation.job_results import Reproduction, TestedRun
from leo_tf.experiments.evaluate import score
from leo_tf.experiments.run_group import Planned, RunGroup, open_group
from leo_tf.experiments.runner.engines import Engine
from leo_tf.files import AnyPath
from leo_tf.methods.registry import check, method_of
from leo_tf.reports import reproduction as report
from leo_tf.reports import results
from leo_tf.runs.run import load_run

_SELECTION = "selection"
_SELECTING = "Selecting the number of steps on the validation classes."
# Settings that must agree to compare a run with a published number.
_SAME_TASK = ("dataset_name", "method", "way", "shot", "query_dirichlet")
# Settings that change no accuracy, or are set by the reproduction.
_NO_MATTER = (
    *("data_path", "train_on_val", "seed", "preset", "strategy", "jit"),
    *("test_way", "test_shot"),  # compared as they are resolved
    *("keep_checkpoints", "log_every", "non_finite_limit"),
)


def reproduce(
    config: Config,
    workdir: AnyPath | None = None,
    *,
    seeds: int = 5,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
    jobs: int | None = 0,
    cluster: str = "",
    run_cpus: int = 1,
    run_gpus: float | None = None,
) -> Reproduction:
    """Follows the protocol. Another call with the same arguments resumes.

    Args:
      config: settings of all runs.
      seeds: number of runs for the selected number of steps, from `config.run.seed` on.
      workdir, data, allow_changes, console: as for `train`.
      jobs, cluster, run_cpus, run_gpus: as in `Engine`.

    Returns:
      The results beside the published ones; also in results.json and results.md.

    Raises:
      Stopped, LeoError: as for `search`.
    """
    seeds = rules.integer(1).checked(seeds, "--seeds")
    check(config)
    method = config.methods.method
    if not method_of(config).is_trained:
        raise FlagError("--method", "a method that is trained", method)
    if config.methods.ensemble != "none":
        expected = "none with --mode=reproduce: validation classes are trained on"
        raise FlagError("--ensemble", expected, config.methods.ensemble)
    engine = Engine(jobs, cluster, run_cpus, run_gpus)
    options: Any = {"console": console, "engine": engine}
    with open_group(
        "reproduce", config, workdir, data, allow_changes, **options
    ) as group:
        _train(group, {_SELECTION: Planned({}, _SELECTING)})
        joined = dataset.load(
            group.config.replace(train_on_val=True),
            ["train", "val"],
            data=data,
            console=console,
        )
        group.data["joined"] = {**group.splits, "train": joined["train"]}
        del joined
        plan = _plan(group, seeds)
        _train(group, plan)
        return _concluded(group, plan)


def _plan(group: RunGroup, seeds: int) -> dict[str, Planned]:
    """Returns the runs of all seeds, for the selected number of steps."""
    first = group.config.run.seed
    steps = group.checkpoints(_SELECTION).best().step
    common = {"train_on_val": True, "num_steps": steps}
    chosen = load_run(group.path / _SELECTION).config  # all runs share its features
    common |= {name: chosen.flat()[name] for name in chosen.features.chosen}
    return {
        f"seed_{seed}": Planned(
            {"seed": seed, **common},
            f"Seed {seed}: {steps} steps on training and validation classes.",
            "joined",
        )
        for seed in range(first, first + seeds)
    }


def _train(group: RunGroup, plan: Mapping[str, Planned]) -> None:
    for error in group.train_all(plan).values():
        if error is not None:
            raise error


def _concluded(group: RunGroup, plan: Mapping[str, Planned]) -> Reproduction:
    """Tests all runs after training, and writes the results."""
    config = group.config
    shape = dataset.evaluation_shape(config, group.splits["test"])
    found = Reproduction(
        results.title(results.data(config), shape, config.run.test_samples),
        _tested(group, _SELECTION, "train"),
        [_tested(group, n, "train+val", **p.settings) for n, p in plan.items()],
        *_published(config),
        given=given(config),
        directory=group.path,
    )
    values = {**report.as_dict(found), "test": shape}
    values["episodes"] = config.run.num_test_episodes
    group.write("test", values, report.markdown(found))
    return found


def _tested(group: RunGroup, name: str, trained_on: str, **settings) -> TestedRun:
    """Returns the scores of a run on the test episodes of its seed."""
    run, config = group.finished(name), group.config.replace(**settings)
    learners, split = {name: run.learner}, group.splits["test"]
    scores = score(learners, config, split, group.console, f"test {name}")[name]
    best, state = run.checkpoints.best().step, run.state
    measured = state.seconds, scores, state.share_not_finite
    return TestedRun(config.run.seed, trained_on, best, *measured)


def _published(config: Config) -> tuple[tuple[Accuracy, ...], str]:
    """Returns the published accuracies to compare with, and a note."""
    preset = PRESETS.get(config.preset)
    if preset is None or not preset.expected:
        return (), "No accuracy was published for this data and these settings."
    differences = preset.config().differences(config)
    names = [name for name, _, _ in differences if name not in _NO_MATTER]
    episodes = config.episodes, preset.config().episodes
    mine, theirs = [(each.evaluation_way, each.evaluation_shot) for each in episodes]
    if mine != theirs or any(name in _SAME_TASK for name in names):
        return (), f"Numbers published for {preset.name} have other episodes or data."
    if not names:
        return preset.expected, ""
    typed = ", ".join(f"--{name}" for name in names)
    return preset.expected, f"Not as published: {typed}."
