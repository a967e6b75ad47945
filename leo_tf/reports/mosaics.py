"""Pictures put together of tiles: an episode, a confusion.

A matplotlib object for each of hundreds of tiles would take seconds.

Shapes: N way, Q queries per class, C classes, S classes shown, H x W pixels.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL.ImageColor import getrgb

from leo_tf.reports.figures import DPI, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG, _BLACK = "#009E73", "#D55E00", "#000000"
_CLASSES_SHOWN, _QUERIES_SHOWN = 20, 10  # more would be too small to read
# Pixels: on the left for names, at the top for a title, at the edge; of a cell of a
# confusion; of an example in an episode, of an answer or bars, of a frame, in between.
_LEFT, _TOP, _EDGE, _SHARE = 195, 58, 10, 28
_TILE, _SMALL, _FRAME, _GAP = 52, 31, 2, 6
_PITCH = _TILE + 2 * _FRAME + _GAP


def confusion(counts: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """Draws where the queries of each class went: [C, C], class c taken for class d.

    Of many classes, those with the most mistakes are shown; the last column is all
    others.
    """
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:_CLASSES_SHOWN])  # [S]
    size, totals = len(shown), counts[shown].sum(axis=1)
    rows = counts[np.ix_(shown, shown)]
    rows = np.column_stack([rows, totals - rows.sum(axis=1)])  # [S, S + 1]
    shares = rows / np.maximum(totals, 1)[:, np.newaxis]
    title = "Row: class, column: answer,\n% of the row's queries"
    if size < len(counts):
        title += f"; {size} of {len(counts)} classes, last column: others"
    full = np.where(
        np.eye(size, size + 1)[..., np.newaxis], getrgb(RIGHT), getrgb(WRONG)
    )
    colours = 255 - shares[..., np.newaxis] * (255.0 - full)  # [S, S + 1, 3]
    bands = np.kron(colours[:, np.newaxis], np.ones([1, _SHARE, _SHARE, 1]))
    names = [_shortened(class_names[n], 20) for n in shown]
    figure, axes = _page(title, names, [*bands.astype(np.uint8)])
    for i, j in np.argwhere(shares >= 0.005):
        x, y, percent = _SHARE * (j + 0.5), _SHARE * (i + 0.5), 100 * shares[i, j]
        axes.text(x, y, f"{percent:.0f}", ha="center", va="center", fontsize=7)
    return figure


def episode(
    class_names: Sequence[str],
    support: np.ndarray | None = None,
    query: np.ndarray | None = None,
    answers: Mapping[str, np.ndarray] | None = None,
    shares: np.ndarray | None = None,
) -> "Figure":
    """Draws one episode: its pictures, if it has any, and how queries were answered.

    Args:
      class_names: N names.
      support: [N, H, W] uint8 ink, an example of each class.
      query: [N, Q, H, W] uint8 ink.
      answers: method -> [N, Q] predicted labels, drawn as pictures of the support.
      shares: [N, Q, N] probabilities by one method, drawn as bars.
    """
    title = "An episode: support (black), queries, answers: green right, orange wrong\n"
    if answers is None:
        title += "(bars: probabilities of the classes, in the order of the rows)"
    else:
        title += "(below: the class that each method took a query for)"
    names: list[str] = []
    bands: list[list[np.ndarray]] = []  # tiles side by side
    for n, name in enumerate(class_names[:_CLASSES_SHOWN]):
        names.append(textwrap.fill(_shortened(name, 50), 20))
        colours = np.full([_QUERIES_SHOWN], GREY)
        if shares is not None:
            colours = _colours(np.argmax(shares[n], axis=-1), n)
        if support is not None and query is not None:
            bands.append([_tile(support[n], _BLACK), *map(_tile, query[n], colours)])
            for method, labels in (answers or {}).items():
                names.append(f"{method} answers")
                pairs = zip(support[labels[n]], _colours(labels[n], n))
                bands.append([_tile(*pair, side=_SMALL) for pair in pairs])
        if shares is not None:
            bands.append([*map(_bars, shares[n], colours)])
        bands.append([np.full([_GAP, _PITCH, 3], 255)])  # keeps classes apart
        names += [""] * (len(bands) - len(names))
    columns = max(map(len, bands))
    for tiles in bands:
        tiles[:0] = [np.full_like(tiles[0], 255)] * (columns - len(tiles))
    return _page(title, names, [*map(np.hstack, bands)])[0]


def _page(
    title: str, names: Sequence[str], bands: Sequence[np.ndarray]
) -> "tuple[Figure, Axes]":
    """Pictures [H, W, 3] one below the other, each with a name; axes are in pixels."""
    height, width, _ = (picture := np.vstack(bands)).shape
    down, across = _TOP + height + _EDGE, _LEFT + width + _EDGE
    figure = new_figure(across / DPI, down / DPI)
    place = _LEFT / across, _EDGE / down, width / across, height / down
    axes = figure.add_axes(place)
    axes.axis("off")  # ticks as names would take a tenth of a second
    extent = 0, width, height, 0
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
    heights = np.array([len(band) for band in bands])
    for name, y in zip(names, np.cumsum(heights) - heights / 2):
        text = axes.text(-_EDGE, y, name, ha="right", va="center", fontsize=7)
        text.set_parse_math(False)
    figure.text(_EDGE / across, 1 - _EDGE / down, title, va="top", fontsize=8)
    return figure, axes


def _colours(labels: np.ndarray, n: int) -> np.ndarray:
    """Colours of the answers to those queries of class n that are shown."""
    return np.where(labels[:_QUERIES_SHOWN] == n, RIGHT, WRONG)


def _tile(example: np.ndarray, colour: str, side: int = _TILE) -> np.ndarray:
    """An example in a frame, ink black on white."""
    rows, columns = (np.arange(side) * size // side for size in example.shape)
    return _framed(255 - example[np.ix_(rows, columns)][..., np.newaxis], colour)


def _bars(shares: np.ndarray, colour: str) -> np.ndarray:
    """Probabilities side by side in a frame; the answer's is coloured."""
    inside = np.full([_SMALL, _TILE, 3], 255, np.uint8)
    tops = np.round((1 - np.nan_to_num(shares)) * _SMALL).astype(int)
    edges = np.linspace(0, _TILE, len(shares) + 1).astype(int)
    for k in np.argsort(shares):  # of more than there are pixels, the highest is seen
        columns = slice(edges[k], max(edges[k] + 1, edges[k + 1] - 1))
        inside[tops[k] :, columns] = getrgb(colour if k == np.argmax(shares) else GREY)
    return _framed(inside, colour)


def _framed(inside: np.ndarray, colour: str) -> np.ndarray:
    """A picture in a frame, and white up to the next one; all are equally wide."""
    height, width = (size + 2 * _FRAME for size in inside.shape[:2])
    framed = np.full([height + _GAP, _PITCH, 3], 255, np.uint8)
    framed[:height, :width] = getrgb(colour)
    framed[_FRAME : height - _FRAME, _FRAME : width - _FRAME] = inside
    return framed


def _shortened(name: str, letters: int) -> str:
    """Both ends of a long name: a script and a letter, a directory and a file."""
    beginning = letters * 2 // 5
    ends = f"{name[:beginning]}…{name[beginning + 1 - letters :]}"
    return name if len(name) <= letters else ends
