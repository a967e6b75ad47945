"""What a comparison of methods says: as a dict, in Markdown, and on a terminal."""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import Calibration
from leo_tf.files import finite
from leo_tf.methods.registry import method_named
from leo_tf.reports import results as report


class Row(NamedTuple):
    """One method.

    Attributes:
      name: of the method.
      accuracy: with its 95 % interval over episodes.
      difference: minus the reference, paired by episode, likewise; None for itself.
      calibration: whether it is as sure as it is right.
      parameters: how many numbers meta-steps change.
      best_step: meta-steps of the checkpoint that was tested.
      steps: meta-steps made in all, up to the last checkpoint.
      diverged: whether training ended because steps were no longer finite.
      seconds_trained: they took.
      seconds_to_adapt: median over tasks, one at a time.
      chosen: name -> value of what was chosen on the validation episodes.
      settings: name -> value of what is this method's own.
    """

    name: str
    accuracy: Interval
    difference: Interval | None
    calibration: Calibration
    parameters: int
    best_step: int
    steps: int
    diverged: bool
    seconds_trained: float
    seconds_to_adapt: float
    chosen: dict[str, float]
    settings: dict[str, object]

    @property
    def title(self) -> str:
        """Its name in tables."""
        return method_named(self.name).title


class Comparison(NamedTuple):
    """Methods on the same test episodes.

    Attributes:
      rows: one a method, in the order of `METHODS`.
      reference: the name of the method that differences are to.
      dataset: its name.
      shape: way, shot and num_query of the episodes.
      episodes: how many.
      samples: draws that predictions are averaged over where a method draws, or 0.
      given: the settings that were typed.
      selects: whether checkpoints were selected by validation accuracy.
    """

    rows: list[Row]
    reference: str
    dataset: str
    shape: dict[str, int]
    episodes: int
    samples: int
    given: Mapping[str, object]
    selects: bool
    directory: pathlib.Path

    @property
    def title(self) -> str:
        """What the table is of, in a line."""
        title = report.title(self.dataset, self.shape, self.samples)
        title += " where a method draws" if self.samples else ""
        return f"{title}; ± is the 95 % interval over {self.episodes} episodes"

    def as_dict(self) -> dict:
        """What results.json holds of it."""
        return {
            "methods": {row.name: _row_as_dict(row) for row in self.rows},
            "difference_to": self.reference,
            "test": self.shape,
            "episodes": self.episodes,
            "test_samples": self.samples,
            "interval": "95 % over episodes",
        }


def _row_as_dict(row: Row) -> dict:
    difference = None if row.difference is None else row.difference.as_dict()
    return {
        "title": row.title,
        "accuracy": row.accuracy.as_dict(),
        "difference": difference,
        **row.calibration.as_dict(),
        "trainable_parameters": row.parameters,
        "best_step": row.best_step,
        "steps_trained": row.steps,
        "diverged": row.diverged,
        "seconds_trained": finite(row.seconds_trained),
        "seconds_to_adapt_to_a_task": row.seconds_to_adapt,
        "chosen_on_validation": row.chosen,
        "settings_of_its_own": row.settings,
    }


def _accuracy_columns(comparison: Comparison) -> dict[str, Callable[[Row], str]]:
    def difference(row):
        if row.difference is None:
            return ""
        mean, half_width = (100 * value for value in row.difference)
        return f"{mean:+.2f} ± {half_width:.2f}"

    return {
        "accuracy in %": lambda row: str(row.accuracy),
        f"minus {method_named(comparison.reference).title}": difference,
        "NLL": lambda row: (lambda x: f"{x:.2g}" if x >= 1000 else f"{x:.3f}")(
            row.calibration.nll.mean
        ),
        "ECE in %": lambda row: f"{100 * row.calibration.ece:.1f}",
    }


def _cost_columns() -> dict[str, Callable[[Row], str]]:
    def trained(text):
        return lambda row: text(row) if row.steps else "-"

    return {
        "parameters": lambda row: f"{row.parameters:,}",
        "best step": trained(lambda row: f"{row.best_step:,}"),
        "steps": trained(lambda row: f"{row.steps:,}{' (diverged)' * row.diverged}"),
        "training": trained(lambda row: _duration(row.seconds_trained)),
        "ms to adapt": lambda row: f"{1e3 * row.seconds_to_adapt:.2f}",
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def print_tables(comparison: Comparison) -> None:
    """Prints two tables to standard output: what methods reach, and what they cost."""
    console = Console(highlight=False)
    print(f"\n{comparison.title}")
    for columns in (_accuracy_columns(comparison), _cost_columns()):
        table = Table(box=box.SIMPLE_HEAVY)
        table.add_column("method")
        for title in columns:
            table.add_column(title, justify="right")
        for row in comparison.rows:
            table.add_row(row.title, *(text(row) for text in columns.values()))
        console.print(table)


def as_markdown(comparison: Comparison) -> str:
    """The whole table, and what its columns mean."""
    columns = {**_accuracy_columns(comparison), **_cost_columns()}
    lines = [
        f"# {comparison.title}",
        "",
        f"| method | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for row in comparison.rows:
        cells = (text(row) for text in columns.values())
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    reference = method_named(comparison.reference).title
    tested = (
        "The best step is that of the checkpoint with the best validation, which was "
        "tested."
        if comparison.selects
        else "The validation classes were trained on, too: the last checkpoint was "
        "tested."
    )
    lines += [
        "",
        "All methods answered the same episodes. "
        f"Differences to {reference} are paired by episode. NLL is the negative "
        "log-likelihood of a query in nats, ECE the expected calibration error in 15 "
        f"bins. {tested} Training is the time of all steps, compiling included. A "
        "task's time to adapt is the median of 50 tasks, one at a time.",
        "",
        f"Given: `{report.flags(comparison.given)}`",
        *_own_settings(comparison),
    ]
    return "\n".join([*lines, ""])


def _own_settings(comparison: Comparison) -> list[str]:
    """A line for each method that has settings others have not, or chose some."""
    lines = []
    for row in comparison.rows:
        if row.settings:
            lines += ["", f"{row.title}: `{report.flags(row.settings)}`"]
        if row.chosen:
            chosen = report.flags({n: f"{v:.3g}" for n, v in row.chosen.items()})
            lines += ["", f"{row.title}, chosen on validation episodes: `{chosen}`"]
    return lines


def terminal(found):
    print_tables(found)
    return []
