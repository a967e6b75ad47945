"""Pictures for TensorBoard, drawn in milliseconds: [H, W, 3] uint8 each.

With Pillow, as matplotlib takes longer for one than a hundred training steps.

Shapes: N way, Q queries of a class, C classes, h x w pixels of an example.
"""

import functools
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from leo_tf.evaluation.calibration import Bins, expected_calibration_error, reliability
from leo_tf.reports.figures import BLUE, GREY, ORANGE, RIGHT, WRONG

_CLASSES_SHOWN = 20  # more would be too small to read
_QUERIES_SHOWN = 10
_CELL, _TILE, _BARS, _GAP, _LINE = 24, 48, 24, 6, 14
_LABEL_WIDTH, _LABEL_LETTERS, _LABEL_BEGINNING = 170, 20, 8
_SIDE = 300


def confusion(counts: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """Draws where the queries of each class went.

    Of many classes, those with the most mistakes are shown; the last column is all
    others.

    Args:
      counts: [C, C] queries of class c that were taken for class d.
      class_names: C names.
    """
    wrong = counts * (1 - np.eye(len(counts)))
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    worst = np.argsort(-mistakes, kind="stable")[:_CLASSES_SHOWN]
    shown = np.sort(worst)
    rows = counts[shown]  # [S, C]
    others = rows.sum(axis=1) - rows[:, shown].sum(axis=1)
    columns = np.concatenate([rows[:, shown], others[:, np.newaxis]], axis=1)
    shares = columns / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    side, top = _CELL * len(shown), 2 * _LINE + _GAP
    picture, draw = _canvas(_LABEL_WIDTH + side + _CELL + _GAP, top + side + _GAP)
    title = "Row: class, column: answer, % of the row's queries"
    if len(shown) < len(counts):
        title += f"\n{len(shown)} of {len(counts)} classes; last column: others"
    _text(draw, (_GAP, 0), title)
    for i, row in enumerate(shares):
        y = top + _CELL * i
        _text(draw, (_GAP, y + 4), _label(class_names[shown[i]]))
        for j, share in enumerate(row):
            x = _LABEL_WIDTH + _CELL * j
            _cell(draw, x, y, share, RIGHT if i == j else WRONG)
    return np.asarray(picture)


def reliability_diagram(bins: Bins) -> np.ndarray:
    """Draws accuracy against confidence: on the diagonal, as sure as right."""
    found, error = reliability(bins), expected_calibration_error(bins)
    left, top = 3 * _LINE, 2 * _LINE + _GAP
    picture, draw = _canvas(left + _SIDE + _GAP, top + _SIDE + 2 * _LINE)

    def at(confidence, accuracy):
        return left + _SIDE * confidence, top + _SIDE * (1 - accuracy)

    title = f"Accuracy (bars) by confidence; calibration error {100 * error:.1f} %"
    _text(draw, (_GAP, 0), f"{title}\nOrange: share of the answers")
    for (low, high), share, accuracy in zip(
        found.edges, found.share, found.accuracy, strict=True
    ):
        draw.rectangle((*at(low, accuracy), *at(high, 0)), fill=BLUE, outline="white")
        middle = (low + high) / 2
        draw.line((*at(middle, 0), *at(middle, share)), fill=ORANGE, width=4)
    draw.line((*at(0, 0), *at(1, 1)), fill=GREY)
    draw.rectangle((*at(0, 1), *at(1, 0)), outline="black")
    for tick in (0.0, 0.5, 1.0):
        x, y = at(tick, tick)
        _text(draw, (x - 2 * _GAP, top + _SIDE + 2), f"{tick:.1f}")
        _text(draw, (_GAP, y - _GAP), f"{tick:.1f}")
    return np.asarray(picture)


def episode(
    shares: np.ndarray,
    class_names: list[str],
    support: np.ndarray | None = None,
    query: np.ndarray | None = None,
) -> np.ndarray:
    """Draws one episode: a row for each class, with probabilities as bars.

    Args:
      shares: [N, Q, N] probabilities of the answers.
      class_names: N names.
      support: [N, h, w] uint8, an example of each class, or None without pictures.
      query: [N, Q, h, w] uint8, likewise.
    """
    way, queries = shares.shape[0], min(_QUERIES_SHOWN, shares.shape[1])
    tile = _TILE if support is not None else 0
    height, width = tile + _BARS + 3 * _GAP, _TILE + 2 * _GAP
    size = _LABEL_WIDTH + width * (queries + 1), _LINE + _GAP + height * way
    picture, draw = _canvas(*size)
    _text(draw, (_GAP, 0), "Support, then queries: green right, orange wrong")
    for n in range(way):
        top = _LINE + _GAP + height * n
        _text(draw, (_GAP, top + height // 3), _label(class_names[n]))
        if support is not None:
            _paste(picture, support[n], _LABEL_WIDTH, top)
        for q in range(queries):
            left = _LABEL_WIDTH + width * (q + 1)
            if query is not None:
                _paste(picture, query[n, q], left, top)
            colour = RIGHT if np.argmax(shares[n, q]) == n else WRONG
            _bars(draw, left, top + tile, shares[n, q], colour)
            frame = (left - 2, top - 2, left + _TILE + 1, top + tile + _BARS + 1)
            draw.rectangle(frame, outline=colour, width=2)
    return np.asarray(picture)


def _canvas(width, height):
    picture = Image.new("RGB", (width, height), "white")
    return picture, ImageDraw.Draw(picture)


def _text(draw, position, text):
    draw.text(position, text, fill="black", font=_font())


def _label(name: str) -> str:
    """Both ends of a long name: a script and a letter, a directory and a file."""
    if len(name) <= _LABEL_LETTERS:
        return name
    return f"{name[:_LABEL_BEGINNING]}…{name[_LABEL_BEGINNING + 1 - _LABEL_LETTERS :]}"


@functools.cache
def _font():
    import matplotlib  # slow, and needed for its path only

    folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), 11)


def _cell(draw, x, y, share, colour):
    """One entry of a confusion: the darker the more, with its percentage."""
    if share < 0.005:
        return
    full = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    mixed = (255 - share * (255 - full)).astype(int)
    draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=tuple(mixed.tolist()))
    _text(draw, (x + 2, y + 5), f"{100 * share:.0f}")


def _bars(draw, left, top, shares, colour):
    """Probabilities side by side; the answer's is coloured."""
    width, bottom = _TILE / len(shares), top + _BARS
    for k, share in enumerate(np.nan_to_num(shares)):
        fill = colour if k == np.argmax(shares) else GREY
        x = left + width * k
        box = (x, bottom - share * (_BARS - 2), max(x, x + width - 2), bottom)
        draw.rectangle(box, fill=fill)


def _paste(picture, example, left, top):
    """An example, ink black on white."""
    tile = Image.fromarray(255 - example).resize((_TILE, _TILE))
    picture.paste(tile, (left, top))
