"""Writes texts and hyperparameters of a run to TensorBoard at its beginning."""

import pathlib
from collections.abc import Mapping

from leo_tf.configs.presets import given
from leo_tf.configs.schema import GROUP_OF, GROUPS, Config
from leo_tf.data_pipeline.dataset import Split, evaluation_shape
from leo_tf.environment import program
from leo_tf.methods.variants import is_known
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.tags import ACCURACY, BEST_ACCURACY, LOSS
from leo_tf.reports.results import flags
from leo_tf.reports.table import Table

# Settings of the model and its training, by which runs are compared.
_COMPARED_GROUPS = ("episodes", "model", "optimizer")
_COMPARED: tuple[str, ...] = ("dataset_name", "method", "mixed_precision")
_COMPARED += ("num_steps", "seed", "train_on_val")

# TensorBoard's table begins with five settings: these, and this run's own.
_FIRST = frozenset({"method", "outer_lr"})

# Title -> run and tag.
METRICS = {
    "best validation accuracy": ("validation", BEST_ACCURACY),
    "validation accuracy": ("validation", ACCURACY),
    "validation loss": ("validation", LOSS),
    "training accuracy": ("train", ACCURACY),
}


def show(
    monitor: EventWriter,
    config: Config,
    splits: Mapping[str, Split],
    workdir: pathlib.Path,
) -> None:
    """Writes settings and data of a run, and the command that starts or resumes it."""
    name, settings = title(workdir.resolve()), given(config)
    first = _FIRST | settings.keys()
    monitor.hyperparameters(name, _hyperparameters(config), METRICS, first)
    command = f"{program()} {flags({**settings, 'workdir': workdir})}"
    texts = {"configuration": _configuration(config), "data": _data(config, splits)}
    monitor.texts({**texts, "command_line": f"    {command}"})


def title(run: pathlib.Path) -> str:
    """Returns the title of a run, with its parent directory to make it unique."""
    above = run.parent
    if is_known(above.name):  # a method's name, so this is a trial of a search
        return f"{run.name} ({above.parent.name}/{above.name})"
    return f"{run.name} ({above.name})"


def _hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """Returns the settings by which TensorBoard compares runs.

    Settings of other methods and of features are included only if changed. Settings
    without a value are omitted.
    """
    defaults, compared = Config().flat(), {}
    for name, value in config.flat().items():
        group = GROUP_OF.get(name)
        is_changed = group in ("methods", "features") and value != defaults[name]
        wanted = name in _COMPARED or group in _COMPARED_GROUPS or is_changed
        if wanted and value is not None:
            compared[name] = value
    return compared


def _configuration(config: Config) -> str:
    groups = {n: values for n, values in config.to_dict().items() if n in GROUPS}
    groups[""] = {"preset": config.preset}
    rows = [
        (name, "-" if value in (None, "") else str(value), group)
        for group, values in groups.items()
        for name, value in values.items()
    ]
    columns = "setting", "value", ""
    return Table(columns, rows, left=columns).markdown()


def _data(config: Config, splits: Mapping[str, Split]) -> str:
    columns = "split", "classes", "examples", "D", "episodes", "source", "SHA-256"
    rows = []
    for name, split in splits.items():
        shape = vars(config.episodes)
        if name != "train":
            shape = evaluation_shape(config, split)
        episode = f"{shape['way']}-way {shape['shot']}-shot"
        episode += f", {shape['num_query']} queries"
        sizes = map(str, (len(split.class_names), *split.table.shape))
        rows.append((name, *sizes, episode, split.source, split.digest[:16]))
    return Table(columns, rows, left=columns).markdown()
