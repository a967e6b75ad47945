"""A comparison for each part of the classes: `--mode=compare --class_folds=K`.

fold_0/, fold_1/, ...        the directory of the comparison that tests each part
results.json, results.md     the table over the folds
"""

from collections.abc import Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.errors import FlagError, InputError
from leo_tf.evaluation.job_results import Comparison, FoldedComparison
from leo_tf.experiments.compare import compare
from leo_tf.files import AnyPath, to_json, write_file
from leo_tf.reports import folds as report
from leo_tf.runs.directory import JOB_FILE, RunDirectory, job_of
from leo_tf.runs.run import default_workdir

_MODE = "compare over folds"


def compare_folds(
    config: Config,
    methods: Sequence[str] | None = None,
    workdir: AnyPath | None = None,
    *,
    method_settings: Mapping[str, Mapping[str, object]] | str = "",
    open_set: bool = False,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> FoldedComparison:
    """Compares methods once for each fold of the classes; each class is tested once.

    Called again with the same arguments it goes on. Arguments are those of `compare`;
    `config` has `class_folds`, and no `fold`.

    Returns:
      The comparisons; their table is in results.json and results.md, too.

    Raises:
      Stopped, LeoError: as `compare`.
    """
    folds = config.data.class_folds
    if not folds or config.data.fold is not None:
        received = f"--class_folds={folds} --fold={config.data.fold}"
        raise FlagError("--class_folds", "so many folds, and no --fold", received)
    path = RunDirectory(workdir or f"{default_workdir(config)}_folds").path
    if (path / "config.json").exists() or job_of(path) not in (None, _MODE):
        hint = "Give another --workdir: this one has results of its own."
        raise InputError(str(path), f"a directory for --mode={_MODE}", "another", hint)
    options: Any = {"method_settings": method_settings, "open_set": open_set}
    options |= {"allow_changes": allow_changes, "console": console}
    found: list[Comparison] = []
    for fold in range(folds):
        console.say(f"Fold {fold} of {folds}, counted from 0.")
        own, place = config.replace(fold=fold), path / f"fold_{fold}"
        try:
            found.append(compare(own, methods, place, **options))
        finally:
            if not fold and place.exists():  # what is refused leaves nothing
                write_file(path / JOB_FILE, to_json({"mode": _MODE}))
    folded = FoldedComparison(found, path)
    write_file(path / "results.json", to_json(report.as_dict(folded)))
    write_file(path / "results.md", report.markdown(folded).encode())
    return folded
