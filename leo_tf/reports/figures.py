"""The two pictures of a run: its learning curve, and one test episode.

Shapes: N way, K shot, Q queries per class, H x W pixels.
"""

import pathlib
import textwrap

import numpy as np

from leo_tf.evaluation.intervals import Interval
from leo_tf.files import write_file

# Colours that also the colour-blind tell apart (Okabe and Ito).
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#777777"
RIGHT, WRONG = "#009E73", "#D55E00"
_QUERIES_SHOWN = 6


def learning_curve(
    path: pathlib.Path, history: list[dict], centroid: Interval, title: str = "LEO"
) -> None:
    """Draws accuracy against meta-steps: train, validation, and nearest centroid.

    Args:
      path: of the PNG.
      history: the trainer's, a record a validation.
      centroid: accuracy of nearest centroid on the validation episodes.
      title: of the method.
    """
    figure, axes = _figure(7, 4.2)
    steps = [record["step"] for record in history]
    # None, where it was not finite, becomes NaN, which is not drawn.
    validation, half_width = (
        100 * np.array([record[name] for record in history], np.float64)
        for name in ("val_accuracy", "val_half_width")
    )
    trained = [(r["step"], r["train_accuracy"]) for r in history]
    trained = [(s, 100 * a) for s, a in trained if a is not None]
    if trained:
        axes.plot(
            *zip(*trained),
            "o-",
            color=ORANGE,
            ms=3,
            label=f"{title}, training (with dropout, if any)",
        )
    validated = f"{title}, validation"
    axes.plot(steps, validation, "o-", color=BLUE, ms=3, label=validated)
    axes.fill_between(
        steps, validation - half_width, validation + half_width, color=BLUE, alpha=0.2
    )
    axes.axhline(
        100 * centroid.mean, color=GREY, ls="--", label="nearest centroid, validation"
    )
    axes.set(xlabel="meta-steps", ylabel="accuracy in %", xlim=(0, None))
    axes.set_title("Learning curve (band: 95 % over episodes)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def episode(
    path: pathlib.Path,
    support: np.ndarray,
    query: np.ndarray,
    class_names: list[str],
    answers: dict[str, np.ndarray],
) -> None:
    """Draws one episode: its support, some queries, and each method's answers.

    Args:
      path: of the PNG.
      support: [N, K, H, W] pictures; the first of each class stands for it.
      query: [N, Q, H, W] pictures.
      class_names: N names.
      answers: method -> [N, Q] predicted labels.
    """
    way, shown = len(query), min(_QUERIES_SHOWN, query.shape[1])
    block = 1 + len(answers)  # grid rows of a class: its pictures, then each method
    heights = [1.0] + [0.6] * len(answers)
    figure, axes = _figure(
        0.8 * (shown + 3),
        0.8 * way * sum(heights) + 0.6,
        rows=way * block,
        columns=shown + 2,
        height_ratios=heights * way,
        width_ratios=[2.0] + [1.0] * (shown + 1),
    )
    for n in range(way):
        top = n * block
        _label(axes[top, 0], textwrap.fill(class_names[n].capitalize(), 18))
        _tile(axes[top, 1], support[n, 0], "black")
        for q in range(shown):
            _tile(axes[top, q + 2], query[n, q], GREY)
        for row, (method, predicted) in enumerate(answers.items(), start=top + 1):
            _label(axes[row, 0], f"{method} answers")
            for q in range(shown):
                label = int(predicted[n, q])
                colour = RIGHT if label == n else WRONG
                _tile(axes[row, q + 2], support[label, 0], colour)
    figure.suptitle(
        "One test episode: an example given of each class (black), queries of it\n"
        "(grey), and the class each method took them for (green right, orange wrong)",
        fontsize=9,
    )
    _save(figure, path)


def _figure(width, height, rows=1, columns=1, **ratios):
    # Without pyplot: no global state, and no display is looked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, gridspec_kw=ratios)
    if rows * columns > 1:
        for axes in grid.flat:
            axes.axis("off")
    return figure, grid


def _label(axes, text):
    axes.text(1, 0.5, text, ha="right", va="center", fontsize=7)


def _tile(axes, picture, colour):
    axes.axis("on")
    axes.imshow(255 - picture, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1.5)


def _save(figure, path: pathlib.Path):
    write_file(path, lambda file: figure.savefig(file, format="png", dpi=130))
