"""What a search for settings says: on a terminal, in Markdown, and as a picture."""

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from leo_tf.evaluation.intervals import Interval
from leo_tf.files import finite, write_file
from leo_tf.methods.registry import method_named
from leo_tf.methods.settings import LINEAR, ranges
from leo_tf.reports.figures import BLUE, GREY, ORANGE
from leo_tf.reports.results import flags

_COLUMNS = 3
_SHOWN = 5  # best trials on the terminal


class Trial(NamedTuple):
    """A run with settings of its own.

    Attributes:
      settings: name -> value; empty for those that were given.
      accuracy: of its best validation; None if there was none.
      best_step: meta-steps until then.
      steps: meta-steps until the last checkpoint.
      seconds: they took.
      diverged: whether it ended because too many steps were not finite.
    """

    settings: dict[str, float]
    accuracy: Interval | None
    best_step: int | None
    steps: int
    seconds: float
    diverged: bool

    @property
    def rank(self) -> float:
        """Higher is better; lowest where no run to the end is to be hoped for."""
        if self.diverged or self.accuracy is None:
            return -math.inf
        return self.accuracy.mean

    def as_dict(self) -> dict:
        """What results.json holds of it."""
        return {
            "settings": self.settings,
            "validation_accuracy": self.accuracy and self.accuracy.as_dict(),
            "best_step": self.best_step,
            "steps_trained": self.steps,
            "seconds_trained": finite(self.seconds),
            "diverged": self.diverged,
        }

    @property
    def flags(self) -> str:
        """Its settings as one would type them."""
        return flags(self.settings)

    def cells(self) -> list[str]:
        """Its row of a table, without its number and its settings."""
        accuracy = "-" if self.accuracy is None else str(self.accuracy)
        accuracy += " (diverged)" if self.diverged else ""
        steps = "-" if self.best_step is None else f"{self.best_step:,}"
        return [accuracy, steps, f"{self.steps:,}"]


_TITLES = ("trial", "validation accuracy in %", "best step", "steps")
_AS_GIVEN = "as given"


def best_of(trials: list[Trial]) -> int | None:
    """The number of the best trial, of equals the first; None if all diverged."""
    best = max(range(len(trials)), key=lambda number: trials[number].rank)
    return best if math.isfinite(trials[best].rank) else None


def _ranked(trials: list[Trial]) -> list[tuple[int, Trial]]:
    return sorted(enumerate(trials), key=lambda pair: -pair[1].rank)


def print_tables(found: dict[str, list[Trial]]) -> None:
    """Prints the best trials of each method, and the given settings, if not among."""
    console = Console(highlight=False)
    for name, trials in found.items():
        ranked = _ranked(trials)
        shown = ranked[:_SHOWN] + [pair for pair in ranked[_SHOWN:] if pair[0] == 0]
        table = Table(box=box.SIMPLE_HEAVY)
        for title in _TITLES:
            table.add_column(title, justify="right")
        for number, trial in shown:
            mark = f" ({_AS_GIVEN})" if not trial.settings else ""
            table.add_row(f"{number}{mark}", *trial.cells())
        print(f"\n{method_named(name).title}: best of {len(trials)} trials")
        console.print(table)
        print(_conclusion(trials))


def _conclusion(trials: list[Trial]) -> str:
    best = best_of(trials)
    if best is None:
        return "Every trial diverged: no settings are recommended."
    return trials[best].flags or "The settings given were best."


def as_markdown(found: dict[str, list[Trial]], given: Mapping[str, object]) -> str:
    """Every trial, best first; `given` are the settings that were typed."""
    titles, lines = (*_TITLES, "settings"), []
    for name, trials in found.items():
        lines += [f"# {method_named(name).title}", "", f"| {' | '.join(titles)} |"]
        lines += ["|" + "---|" * len(titles)]
        for number, trial in _ranked(trials):
            settings = f"`{trial.flags}`" if trial.settings else _AS_GIVEN
            cells = [str(number), *trial.cells(), settings]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += ["± is the 95 % interval over the validation episodes, the same for all."]
    return "\n".join([*lines, "", f"Given: `{flags(given)}`", ""])


def picture(path: pathlib.Path, found: dict[str, list[Trial]]) -> None:
    """Draws validation accuracy against each setting; the best trial in orange.

    Where the settings as given were best, nothing is orange.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state

    panels = [
        (name, setting, limits)
        for name in found
        for setting, limits in ranges(name).items()
    ]
    lines = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (name, setting, limits) in zip(grid.flat, panels):
        _draw(axes, found[name], setting)
        _limit(axes, *limits, is_linear=setting in LINEAR)
        axes.set_xlabel(setting, fontsize=8)
        axes.set_title(method_named(name).title, fontsize=8)
    figure.suptitle("validation; orange: the best trial, crosses: diverged", fontsize=9)
    write_file(path, lambda file: figure.savefig(file, format="png", dpi=130))


def _draw(axes, trials: list[Trial], setting: str) -> None:
    best = best_of(trials)
    for number, trial in enumerate(trials):
        if trial.accuracy is None:
            continue
        mean, width = (100 * value for value in trial.accuracy)
        if not trial.settings:
            axes.axhline(mean, color=GREY, linestyle="--")
            axes.annotate(
                "settings as given",
                (0.02, mean),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=6,
                color=GREY,
            )
            continue
        axes.errorbar(
            trial.settings[setting],
            mean,
            yerr=width if math.isfinite(width) else 0.0,
            fmt="x" if trial.diverged else "o",
            markersize=4,
            color=ORANGE if number == best else BLUE,
            zorder=3 if number == best else 2,
        )
    axes.set_ylabel("accuracy in %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _limit(axes, low: float, high: float, is_linear: bool) -> None:
    """Shows the whole range that was drawn from."""
    if is_linear:
        margin = 0.03 * (high - low)
        axes.set_xlim(low - margin, high + margin)
    else:
        margin = (high / low) ** 0.03
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)


def terminal(found):
    print_tables(found)
    return []
