"""Report of a comparison of methods: JSON, Markdown, terminal and pictures."""

import shlex
from typing import TYPE_CHECKING

import numpy as np

from leo_tf.environment import program
from leo_tf.evaluation.job_results import Comparison, Row
from leo_tf.files import near
from leo_tf.reports import results as report
from leo_tf.reports.figures import BLUE, ORANGE, new_figure, reliability_diagrams
from leo_tf.reports.table import Table, document

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SEEN = "Transductive methods, which see all queries of an episode together:"


def as_dict(comparison: Comparison) -> dict:
    """Returns the content of results.json."""
    return {
        "best_on_validation": comparison.best and comparison.best.name,
        "lead": comparison.lead and comparison.lead.as_dict(),
        "methods": {row.name: row.as_dict() for row in comparison.rows},
        "difference_to": comparison.reference,
        "test": comparison.shape,
        "episodes": comparison.episodes,
        "test_samples": comparison.samples,
        "interval": "95 % over episodes",
    }


def title(comparison: Comparison) -> str:
    """Returns the title: data, episodes and draws."""
    samples = comparison.samples
    tested = report.title(comparison.dataset, comparison.shape, samples)
    tested += " where a method draws" if samples else ""
    return f"{tested}; ± is the 95 % interval over {comparison.episodes} episodes"


def _tables(comparison: Comparison, shown=slice(None)) -> list[str | Table]:
    """Returns a table of inductive methods, then a titled one of transductive ones."""
    minus = f"minus {comparison.reference_title}"
    reached = "accuracy in %", minus, *report.SURETY
    trained = "parameters", "best step", "steps", "training"
    columns = *reached, "validation", *trained, "ms to adapt"
    parts: list[str | Table] = []
    for said, rows in ("", comparison.inductive), (_SEEN, comparison.transductive):
        if rows:
            cells = [(row.title, *_cells(row)[shown]) for row in rows]
            table = Table(("method", *columns[shown]), cells, ("method",))
            parts += [said, table] if said else [table]
    return parts


def _cells(row: Row) -> tuple[str, ...]:
    trained = "-", "-", "-"
    if row.steps:
        seconds = row.seconds_trained
        took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
        steps = f"{row.steps:,}{' (diverged)' * row.diverged}"
        trained = f"{row.best_step:,}", steps, took
    return (
        str(row.accuracy),
        report.signed(row.difference) if row.difference else "",
        *report.surety(row.calibration),
        f"{100 * row.validation.mean:.2f}" if row.validation else "-",
        f"{row.parameters:,}",
        *trained,
        f"{1e3 * row.seconds_to_adapt:.2f}",
    )


def terminal(comparison: Comparison) -> list[str | Table]:
    """Returns the terminal's output: tables of accuracies and costs, and advice."""
    reached, costs = slice(5), slice(5, None)  # columns after the name
    parts: list[str | Table] = [f"\n{title(comparison)}"]
    parts += [*_tables(comparison, reached), *_tables(comparison, costs)]
    parts += _open_set(comparison)
    said, ranked = advice(comparison), comparison.ranked(comparison.inductive)
    if row := next((row for row in ranked if row.is_exportable), None):
        directory = shlex.quote(f"--workdir={near(comparison.directory / row.name)}")
        command = f"{program()} --mode=export {directory} --export_dir=exported"
        if row is not ranked[0]:
            said += f" {ranked[0].title} cannot be exported."
        parts.append(f"{said} To export {row.title}:\n    {command}\n")
    elif said:
        parts.append(f"{said}\n")
    return parts


def _open_set(comparison: Comparison) -> list[str | Table]:
    """Returns results on queries of other classes, if requested."""
    found = {row.title: row.open_set for row in comparison.rows if row.open_set}
    return report.open_set(found) if found else []


def advice(comparison: Comparison) -> str:
    """Returns the best method on validation, in a sentence; "" if none was validated.

    It is a method that scores each query alone. If a transductive method validated
    better, another sentence names it.
    """
    best, lead = comparison.best, comparison.lead
    if best is None or best.validation is None:
        return ""
    said = f"Best on the validation episodes: {best.words}, {best.validation} %"
    if lead is not None:
        level = round(100 * lead.mean, 2) == 0
        how = "level with" if level else f"{lead} points above"
        said += f", {how} {comparison.ranked(comparison.inductive)[1].words}"
        said += "" if level else ", paired by episode"
    said += f". In the test it has {best.accuracy} %."
    other = next(iter(comparison.ranked(comparison.transductive)), None)
    if other and other.validation and other.validation.mean > best.validation.mean:
        said += f" If all queries come at once, {other.words} validated better: "
        said += f"{other.validation} %; {other.accuracy} % in the test."
    return said


def markdown(comparison: Comparison) -> str:
    """Returns the whole table and the meaning of its columns."""
    reference = comparison.reference_title
    tested = "The checkpoint of the best step, which has the best validation accuracy,"
    if not comparison.selects:
        tested = "The validation classes were trained on too, so the last checkpoint"
    parts: list[str | Table] = [
        f"# {title(comparison)}",
        *_tables(comparison),
        f"All methods answered the same episodes. Differences to {reference} are "
        "paired by episode. NLL is the negative log-likelihood of a query in nats, ECE "
        "the expected calibration error in 15 bins, and at T the same after dividing "
        "logits by a temperature fitted on validation episodes. "
        "Validation is the accuracy in % on validation episodes: choose a method by "
        f"it. {tested} was tested. Training is the time of all steps and of compiling. "
        "A task's time to adapt is the median of 50 tasks, one at a time.",
        *_open_set(comparison),
        advice(comparison),
        f"Given: `{report.flags(comparison.given)}`",
    ]
    for row in comparison.rows:
        if row.settings:
            parts.append(f"{row.title}: `{report.flags(row.settings)}`")
        if row.chosen:
            chosen = report.flags({n: f"{v:.3g}" for n, v in row.chosen.items()})
            parts.append(f"{row.title}, chosen on validation episodes: `{chosen}`")
    return document(parts)


def accuracies(comparison: Comparison) -> "Figure":
    """Draws a dot per method, with the 95 % interval over episodes."""
    rows = [*comparison.inductive, *comparison.transductive]
    figure = new_figure(7, 1.4 + 0.35 * len(rows), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = ORANGE if row.name == comparison.reference else BLUE
        mean, width = (100 * value for value in row.accuracy)
        width = width if np.isfinite(width) else 0.0
        axes.errorbar(mean, place, xerr=width, fmt="o", color=colour, capsize=3)
        axes.text(mean, place - 0.15, f"{mean:.2f}", ha="center", fontsize=7)
    titles = [f"{row.title}{' (transductive)' * row.is_transductive}" for row in rows]
    axes.set_yticks(range(len(rows)), titles)
    axes.set_ylim(len(rows) - 0.5, -0.7)  # the table's order, with room for numbers
    axes.set_xlabel("accuracy in %")
    axes.grid(axis="x", alpha=0.3)
    lines = title(comparison).replace("; ", "\n")
    figure.suptitle(lines, fontsize=9, parse_math=False)
    return figure


def reliabilities(comparison: Comparison) -> "Figure":
    """Draws reliability diagrams of the methods."""
    bins = {row.title: row.calibration.bins for row in comparison.rows}
    return reliability_diagrams(bins, title(comparison).split("; ")[0])
