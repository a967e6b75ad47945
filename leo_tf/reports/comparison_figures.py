"""The two pictures of a comparison: accuracies, and how sure methods are.

Shapes: m bins that are not empty.
"""

import pathlib

import numpy as np

from leo_tf.evaluation.calibration import reliability
from leo_tf.files import write_file
from leo_tf.reports.comparison import Comparison
from leo_tf.reports.figures import BLUE, GREY, ORANGE

_COLUMNS = 4


def accuracies(path: pathlib.Path, comparison: Comparison) -> None:
    """Draws a dot for each method, with the 95 % interval over episodes."""
    from matplotlib.figure import Figure  # without pyplot: no global state

    rows = comparison.rows
    figure = Figure(figsize=(7, 1.4 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = ORANGE if row.name == comparison.reference else BLUE
        mean, half_width = (100 * value for value in row.accuracy)
        half_width = half_width if np.isfinite(half_width) else 0.0
        axes.errorbar(mean, place, xerr=half_width, fmt="o", color=colour, capsize=3)
        axes.annotate(
            f"{mean:.2f}",
            (mean, place),
            (0, 6),
            "data",
            "offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)  # the table's order, with room for numbers
    axes.set_xlabel("accuracy in %")
    axes.grid(axis="x", alpha=0.3)
    figure.suptitle(comparison.title.replace("; ", "\n"), fontsize=9)
    write_file(path, lambda file: figure.savefig(file, format="png", dpi=130))


def reliabilities(path: pathlib.Path, comparison: Comparison) -> None:
    """Draws, for each method, accuracy against confidence: a diagonal if honest."""
    from matplotlib.figure import Figure

    rows = comparison.rows
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    size = (2.4 * columns + 0.4, 2.8 * lines + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.axis("off")
    for axes, row in zip(grid.flat, rows):
        _draw_reliability(axes, row)
    for axes in grid.flat[max(0, len(rows) - columns) : len(rows)]:
        axes.tick_params(labelbottom=True)  # none is below it
    figure.supylabel("accuracy", fontsize=9)
    figure.supxlabel("confidence (bars: share of the queries)", fontsize=9)
    figure.suptitle(comparison.title.split("; ")[0], fontsize=9)
    write_file(path, lambda file: figure.savefig(file, format="png", dpi=130))


def _draw_reliability(axes, row):
    found = reliability(row.calibration.bins)
    low, high = found.edges.T  # [m] each
    axes.bar(low, found.share, high - low, align="edge", color=GREY, alpha=0.35)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
    axes.plot(found.confidence, found.accuracy, "o-", color=BLUE, ms=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.tick_params(labelsize=7)
    error = 100 * row.calibration.ece
    axes.set_title(f"{row.title}\nECE {error:.1f} %", fontsize=8)
