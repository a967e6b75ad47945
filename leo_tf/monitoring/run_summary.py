"""What TensorBoard is told of a run at its beginning: texts and hyperparameters."""

import pathlib
from collections.abc import Mapping

from leo_tf.configs.presets import given
from leo_tf.configs.schema import GROUP_OF, GROUPS, Config
from leo_tf.data_pipeline.dataset import Split, evaluation_shape
from leo_tf.methods.registry import is_known
from leo_tf.monitoring.event_writer import Monitor
from leo_tf.monitoring.tags import ACCURACY, BEST_ACCURACY, LOSS
from leo_tf.reports import results as report

# The settings that say what is trained, and how; of the others runs differ by chance.
_COMPARED_GROUPS = ("episodes", "model", "optimizer")
_COMPARED = (
    "dataset_name",
    "method",
    "mixed_precision",
    "num_steps",
    "seed",
    "train_on_val",
)

# TensorBoard's table begins with five: these, and what this run has of its own.
_FIRST = frozenset({"method", "outer_lr"})

# Title -> run and tag.
METRICS = {
    "best validation accuracy": ("validation", BEST_ACCURACY),
    "validation accuracy": ("validation", ACCURACY),
    "validation loss": ("validation", LOSS),
    "training accuracy": ("train", ACCURACY),
}


def show(
    monitor: Monitor,
    config: Config,
    splits: Mapping[str, Split],
    workdir: pathlib.Path,
) -> None:
    """Shows what runs in a run directory."""
    monitor.hyperparameters(
        title(workdir.resolve()),
        hyperparameters(config),
        METRICS,
        first=_FIRST | given(config).keys(),
    )
    monitor.texts(
        {
            "configuration": _configuration(config),
            "data": _data(config, splits),
            "command_line": f"    {command_line(config, workdir)}",
        }
    )


def title(run: pathlib.Path) -> str:
    """What a run is called among others; by its name alone it may not be the only."""
    above = run.parent
    if is_known(above.name):  # a method's name: a trial of a search
        return f"{run.name} ({above.parent.name}/{above.name})"
    return f"{run.name} ({above.name})"


def hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """The settings that TensorBoard compares runs by.

    Those of other methods than LEO only if they are not the default, and nothing that
    is not given.
    """
    defaults, compared = Config().flat(), {}
    for name, value in config.flat().items():
        group = GROUP_OF.get(name)
        is_changed = group == "methods" and value != defaults[name]
        wanted = name in _COMPARED or group in _COMPARED_GROUPS or is_changed
        if wanted and value is not None:
            compared[name] = value
    return compared


def command_line(config: Config, workdir: pathlib.Path) -> str:
    """The command that starts this run, or resumes it, in a shell."""
    return f"python run_leo.py {report.flags({**given(config), 'workdir': workdir})}"


def _configuration(config: Config) -> str:
    lines = ["| setting | value | |", "|---|---|---|"]
    for group, settings in config.to_dict().items():
        if group in GROUPS:
            lines += [f"| {n} | {_cell(v)} | {group} |" for n, v in settings.items()]
    return "\n".join([*lines, f"| preset | {_cell(config.preset)} | |"])


def _cell(value) -> str:
    return "-" if value in (None, "") else str(value).replace("|", "\\|")


def _data(config: Config, splits: Mapping[str, Split]) -> str:
    lines = ["| split | classes | examples | D | episodes | source | SHA-256 |"]
    lines += ["|---" * 7 + "|"]
    for name, split in splits.items():
        if name == "train":
            shape = {
                n: getattr(config.episodes, n) for n in ("way", "shot", "num_query")
            }
        else:
            shape = evaluation_shape(config, split)
        episode = f"{shape['way']}-way {shape['shot']}-shot"
        episode += f", {shape['num_query']} queries"
        rows, size = split.table.features.shape
        counts = f"{len(split.class_names)} | {rows} | {size}"
        source = f"{split.source} | {split.digest[:16]}"
        lines.append(f"| {name} | {counts} | {episode} | {source} |")
    return "\n".join(lines)
