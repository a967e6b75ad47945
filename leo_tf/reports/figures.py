"""Matplotlib figures, for a file (`save`) or for TensorBoard (`pixels`).

Importing matplotlib takes half a second, so `new_figure` does it.
"""

import pathlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from leo_tf.environment import import_matplotlib
from leo_tf.evaluation.calibration import Bins, expected_calibration_error, reliability
from leo_tf.evaluation.intervals import Interval
from leo_tf.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that the colour-blind can distinguish (Okabe and Ito).
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#777777"
DPI = 130


def new_figure(width: float, height: float, **options: Any) -> "Figure":
    """Returns an empty figure with sizes in inches; `options` are matplotlib's."""
    import_matplotlib()
    from matplotlib.figure import Figure  # without pyplot: no global state

    return Figure(figsize=(width, height), dpi=DPI, **options)


def new_panels(
    count: int, columns: int, width: float, height: float, title: str
) -> "tuple[Figure, list[Axes]]":
    """Returns a figure with a title, and its panels in rows, with sizes in inches."""
    lines, columns = max(1, -(-count // columns)), max(1, min(count, columns))
    size = width * columns + 0.4, height * lines + 0.5
    figure = new_figure(*size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure, list(panels[:count])


def save(path: pathlib.Path, figure: "Figure") -> None:
    """Writes a figure as PNG. Raises a DiskError if that fails."""
    from matplotlib.image import imsave

    drawn = pixels(figure)
    write_file(path, lambda file: imsave(file, drawn, format="png", dpi=DPI))


def pixels(figure: "Figure") -> np.ndarray:
    """Draws a figure to an array [height, width, 3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # The canvas is chosen by name, without a display or MPLBACKEND. A notebook passes
    # its MPLBACKEND to processes that may lack it.
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # letters missing in the font become boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def learning_curve(
    history: list[dict], centroid: Interval, title: str = "LEO"
) -> "Figure":
    """Draws accuracy against meta-steps: train, validation, and nearest centroid.

    `history` is the trainer's, a record per validation; `title` is the method's.
    """
    figure = new_figure(7, 4.2, layout="constrained")
    axes = figure.subplots()
    steps = [record["step"] for record in history]
    # None stands for a non-finite value. It becomes NaN, which is not drawn.
    trained, validation, width = (
        100 * np.array([record[name] for record in history], np.float64)
        for name in ("train_accuracy", "val_accuracy", "val_half_width")
    )
    if np.isfinite(trained).any():
        label = f"{title}, training (with dropout, if any)"
        axes.plot(steps, trained, "o-", color=ORANGE, ms=3, label=label)
    label = f"{title}, validation"
    axes.plot(steps, validation, "o-", color=BLUE, ms=3, label=label)
    band = validation - width, validation + width
    axes.fill_between(steps, *band, color=BLUE, alpha=0.2)
    label = "nearest centroid, validation"
    axes.axhline(100 * centroid.mean, color=GREY, ls="--", label=label)
    axes.set(xlabel="meta-steps", ylabel="accuracy in %", xlim=(0, None))
    axes.set_title("Learning curve (band: 95 % over episodes)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def reliability_diagrams(methods: Mapping[str, Bins], title: str) -> "Figure":
    """Draws accuracy against confidence of each method: a diagonal if calibrated."""
    figure, panels = new_panels(len(methods), 4, 2.4, 2.7, title)
    for axes, (name, bins) in zip(panels, methods.items()):
        found, error = reliability(bins), expected_calibration_error(bins)
        low, high = found.edges.T
        axes.bar(low, found.share, high - low, align="edge", color=GREY, alpha=0.35)
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        axes.plot(found.confidence, found.accuracy, "o-", color=BLUE, ms=3)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.tick_params(labelsize=7)
        axes.set_title(f"{name}\nECE {100 * error:.1f} %", fontsize=8, parse_math=False)
    figure.supylabel("accuracy", fontsize=9)
    figure.supxlabel("confidence (bars: share of the queries)", fontsize=9)
    return figure
