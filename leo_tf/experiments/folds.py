"""Compares methods on each fold of the classes: `--mode=compare --class_folds=K`.

fold_0/, fold_1/, ...        directory of the comparison that tests this fold
results.json, results.md     the table over the folds
"""

import contextlib
import itertools
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.errors import FlagError
from leo_tf.evaluation.job_results import Comparison, FoldedComparison
from leo_tf.experiments.compare import compare, concluded, opened, planned
from leo_tf.experiments.run_group import sorted_out
from leo_tf.experiments.runner.engines import Engine, train_all
from leo_tf.files import AnyPath, to_json, write_file
from leo_tf.reports import folds as report
from leo_tf.runs.directory import JOB_FILE, RunDirectory, check_job
from leo_tf.runs.settings import default_workdir, named

_MODE = "compare --class_folds"


def compare_folds(
    config: Config,
    methods: Sequence[str] | None = None,
    workdir: AnyPath | None = None,
    *,
    method_settings: Mapping[str, Mapping[str, object]] | str = "",
    open_set: bool = False,
    allow_changes: bool = False,
    console: Console = SILENT,
    jobs: int | None = 0,
    cluster: str = "",
    run_cpus: int = 1,
    run_gpus: float | None = None,
) -> FoldedComparison:
    """Compares methods once for each fold of the classes. Each class is tested once.

    Another call with the same arguments resumes. Arguments are those of `compare`;
    `config` has `class_folds`, and no `fold`. Runs of all folds are trained together.

    Returns:
      The comparisons. Their table is also in results.json and results.md.

    Raises:
      Stopped, LeoError: as for `compare`.
    """
    folds = config.data.class_folds
    if not folds or config.data.fold is not None:
        received = f"--class_folds={folds} --fold={config.data.fold}"
        raise FlagError("--class_folds", "a number of folds, and no --fold", received)
    config = named(config)
    path = RunDirectory(workdir or f"{default_workdir(config)}_folds").path
    check_job(path, _MODE)
    engine = Engine(jobs, cluster, run_cpus, run_gpus)
    options: Any = {"method_settings": method_settings, "open_set": open_set}
    options |= {"allow_changes": allow_changes, "console": console}
    own = [config.replace(fold=fold) for fold in range(folds)]
    with RunDirectory(path).held():
        if engine.is_here:
            found = _one_by_one(own, methods, path, **options)
        else:
            found = _together(own, methods, path, engine, **options)
        folded = FoldedComparison(found, path)
        write_file(path / "results.json", to_json(report.as_dict(folded)))
        write_file(path / "results.md", report.markdown(folded).encode())
    return folded


def _one_by_one(
    configs: Sequence[Config],
    methods: Sequence[str] | None,
    path: pathlib.Path,
    *,
    console: Console,
    **options: Any,
) -> list[Comparison]:
    """Compares on one fold at a time, in this process."""
    found: list[Comparison] = []
    for fold, config in enumerate(configs):
        console.say(f"Fold {fold} of {len(configs)}, counted from 0.")
        place = path / f"fold_{fold}"
        try:
            found.append(compare(config, methods, place, console=console, **options))
        finally:
            _mark(path)
    return found


def _together(
    configs: Sequence[Config],
    methods: Sequence[str] | None,
    path: pathlib.Path,
    engine: Engine,
    *,
    console: Console,
    open_set: bool,
    **options: Any,
) -> list[Comparison]:
    """Trains the runs of all folds together, then tests one fold at a time."""
    with contextlib.ExitStack() as held:
        jobs, options = [], {**options, "console": console, "engine": engine}
        options |= {"open_set": open_set, "was_asked": methods is not None}
        for fold, config in enumerate(configs):
            place = path / f"fold_{fold}"
            opening = opened(config, methods, place, **options)
            try:
                jobs.append(held.enter_context(opening))
            finally:
                _mark(path)
            jobs[-1].group.prefix = f"{place.name}/"
        tasks = [
            {name: job.group.task(name, each) for name, each in planned(job).items()}
            for job in jobs
        ]
        runner = engine.start(configs[0], path, console)
        held.callback(shutil.rmtree, path / "shared", ignore_errors=True)
        held.callback(runner.close)
        every = itertools.chain.from_iterable(each.values() for each in tasks)
        ended = train_all(runner, list(every), console)
        found = []
        for job, mine in zip(jobs, tasks):
            outcomes = {name: ended[task.name] for name, task in mine.items()}
            found.append(concluded(job, sorted_out(outcomes), open_set))
        return found


def _mark(path: pathlib.Path) -> None:
    """Marks the directory as that of a job. A refused job leaves no mark."""
    if (path / "fold_0").exists() and not (path / JOB_FILE).exists():
        write_file(path / JOB_FILE, to_json({"mode": _MODE}))
