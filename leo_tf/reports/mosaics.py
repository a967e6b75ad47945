"""Pictures made of tiles: an episode, and a confusion matrix.

Tiles are joined as arrays. Hundreds of matplotlib objects would take seconds.

Shapes: N way, Q queries per class, C classes, S classes shown, H x W pixels.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL.ImageColor import getrgb

from leo_tf.reports.figures import DPI, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG, _BLACK = "#009E73", "#D55E00", "#000000"
_EDGE, _FRAME, _GAP = 10, 2, 6  # pixels at the edge, of a frame, in between


class Layout(NamedTuple):
    """Limits and sizes of a picture: pixels, and letters per line."""

    classes: int = 20
    queries: int = 10
    left: int = 195  # for names
    top: int = 58  # for the title
    cell: int = 28  # of a confusion
    tile: int = 52  # an example
    small: int = 31  # an answer, or the height of bars
    name: int = 20
    title: int = 200

    @property
    def pitch(self) -> int:
        """Distance from one example to the next."""
        return self.tile + 2 * _FRAME + _GAP


PAGE = Layout()  # more would be too small to read
# TensorBoard shows pictures 340 pixels wide by default.
CARD = Layout(10, 4, 116, 84, 19, 36, 26, 11, 44)


def confusion(
    counts: np.ndarray, class_names: Sequence[str], layout: Layout = PAGE
) -> "Figure":
    """Draws a confusion matrix [C, C]: queries of class c with the answer d.

    With many classes, those with the most mistakes are shown, and the last column has
    all others.
    """
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[: layout.classes])  # [S]
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
    cell = layout.cell
    bands = np.kron(colours[:, np.newaxis], np.ones([1, cell, cell, 1]))
    names = [_shortened(class_names[n], layout.name) for n in shown]
    figure, axes = _page(title, names, [*bands.astype(np.uint8)], layout)
    for i, j in np.argwhere(shares >= 0.005):
        x, y, percent = cell * (j + 0.5), cell * (i + 0.5), 100 * shares[i, j]
        axes.text(x, y, f"{percent:.0f}", ha="center", va="center", fontsize=7)
    return figure


def episode(
    class_names: Sequence[str],
    support: np.ndarray | None = None,
    query: np.ndarray | None = None,
    answers: Mapping[str, np.ndarray] | None = None,
    shares: np.ndarray | None = None,
    layout: Layout = PAGE,
) -> "Figure":
    """Draws one episode: its pictures, if it has any, and the answers to queries.

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
        title += "(below: the answer of each method)"
    names: list[str] = []
    bands: list[list[np.ndarray]] = []  # tiles side by side
    for n, name in enumerate(class_names[: layout.classes]):
        short = _shortened(name, 5 * layout.name // 2)
        names.append(textwrap.fill(short, layout.name))
        colours = np.full([layout.queries], GREY)
        if shares is not None:
            colours = _colours(np.argmax(shares[n], axis=-1), n, layout)
        if support is not None and query is not None:
            pairs = zip([support[n], *query[n]], [_BLACK, *colours])
            bands.append([_tile(*pair, layout.tile, layout) for pair in pairs])
            for method, labels in (answers or {}).items():
                names.append(f"{method} answers")
                pairs = zip(support[labels[n]], _colours(labels[n], n, layout))
                bands.append([_tile(*pair, layout.small, layout) for pair in pairs])
        if shares is not None:
            pairs = zip(shares[n], colours)
            bands.append([_bars(*pair, layout) for pair in pairs])
        bands.append([np.full([_GAP, layout.pitch, 3], 255)])  # keeps classes apart
        names += [""] * (len(bands) - len(names))
    columns = max(map(len, bands))
    for tiles in bands:
        tiles[:0] = [np.full_like(tiles[0], 255)] * (columns - len(tiles))
    return _page(title, names, [*map(np.hstack, bands)], layout)[0]


def _page(
    title: str, names: Sequence[str], bands: Sequence[np.ndarray], layout: Layout
) -> "tuple[Figure, Axes]":
    """Draws pictures [H, W, 3] in a column with names. Axes are in pixels."""
    height, width, _ = (picture := np.vstack(bands)).shape
    lines = [textwrap.fill(line, layout.title) for line in title.split("\n")]
    down, across = layout.top + height + _EDGE, layout.left + width + _EDGE
    figure = new_figure(across / DPI, down / DPI)
    place = layout.left / across, _EDGE / down, width / across, height / down
    axes = figure.add_axes(place)
    axes.axis("off")  # ticks as names would take a tenth of a second
    extent = 0, width, height, 0
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
    heights = np.array([len(band) for band in bands])
    for name, y in zip(names, np.cumsum(heights) - heights / 2):
        text = axes.text(-_EDGE, y, name, ha="right", va="center", fontsize=7)
        text.set_parse_math(False)
    said = "\n".join(lines)
    figure.text(_EDGE / across, 1 - _EDGE / down, said, va="top", fontsize=8)
    return figure, axes


def _colours(labels: np.ndarray, n: int, layout: Layout) -> np.ndarray:
    """Returns colours of the answers to the shown queries of class n."""
    return np.where(labels[: layout.queries] == n, RIGHT, WRONG)


def _tile(example: np.ndarray, colour: str, side: int, layout: Layout) -> np.ndarray:
    """Returns an example in a frame, black on white."""
    rows, columns = (np.arange(side) * size // side for size in example.shape)
    inside = 255 - example[np.ix_(rows, columns)][..., np.newaxis]
    return _framed(inside, colour, layout)


def _bars(shares: np.ndarray, colour: str, layout: Layout) -> np.ndarray:
    """Returns bars of probabilities in a frame, with the answer's coloured."""
    inside = np.full([layout.small, layout.tile, 3], 255, np.uint8)
    tops = np.round((1 - np.nan_to_num(shares)) * layout.small).astype(int)
    edges = np.linspace(0, layout.tile, len(shares) + 1).astype(int)
    for k in np.argsort(shares):  # if bars overlap, the highest is visible
        columns = slice(edges[k], max(edges[k] + 1, edges[k + 1] - 1))
        inside[tops[k] :, columns] = getrgb(colour if k == np.argmax(shares) else GREY)
    return _framed(inside, colour, layout)


def _framed(inside: np.ndarray, colour: str, layout: Layout) -> np.ndarray:
    """Returns a picture in a frame, padded with white to a common width."""
    height, width = (size + 2 * _FRAME for size in inside.shape[:2])
    framed = np.full([height + _GAP, layout.pitch, 3], 255, np.uint8)
    framed[:height, :width] = getrgb(colour)
    framed[_FRAME : height - _FRAME, _FRAME : width - _FRAME] = inside
    return framed


def _shortened(name: str, letters: int) -> str:
    """Returns both ends of a long name, such as a script and a letter."""
    beginning = letters * 2 // 5
    ends = f"{name[:beginning]}…{name[beginning + 1 - letters :]}"
    return name if len(name) <= letters else ends
