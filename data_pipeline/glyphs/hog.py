"""Histograms of oriented gradients: 640 numbers that describe a small picture.

Shape letters: n pictures, S pixels a side, C cells a side, O orientations.

Source: Dalal and Triggs, 2005. Different from theirs: a cell is normalised once, by
the energy of itself and its eight neighbours, so that it keeps one vector of O.
"""

import numpy as np

CELLS = 8
ORIENTATIONS = 10
NUM_FEATURES = CELLS * CELLS * ORIENTATIONS  # 640, the embedding size of the paper

# Identifies these features where they are kept; to be changed whenever they change.
VERSION = "54be43681027ddc97830e02d7c7c4d83838aeff150ab9d802603629f11c4385e"
# Added to a neighbourhood's energy (of gradients of pictures in 0..1): empty paper
# stays near zero instead of having its noise blown up.
_ENERGY_FLOOR = 0.1


def hog(images: np.ndarray) -> np.ndarray:
    """Describes pictures [n, S, S] uint8 by their edges: [n, C * C * O] float64.

    The numbers are cell by cell, not negative; S is a multiple of C. An edge counts the
    same dark on light and light on dark. Bin k is centred at k * 180 / O degrees of the
    gradient, so a vertical edge falls into bin 0. Edges between two bins, and pixels
    between two cells, are shared linearly.
    """
    pooling = _pooling(images.shape[-1])  # [C, S]
    pooled = [pooling @ bin_ @ pooling.T for bin_ in _orientation_maps(images)]
    cells = np.stack(pooled, axis=-1)  # [n, C, C, O]
    energy = np.pad(np.square(cells).sum(axis=-1), ((0, 0), (1, 1), (1, 1)))
    rows = energy[:, :-2] + energy[:, 1:-1] + energy[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # [n, C, C]
    cells /= np.sqrt(around + _ENERGY_FLOOR)[..., None]
    return cells.reshape(len(images), -1)


def _orientation_maps(images):
    """Yields [n, S, S] for each orientation: the gradient's share in it."""
    padded = np.pad(images / 255.0, ((0, 0), (1, 1), (1, 1)), mode="edge")
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    length = np.hypot(right, down)
    angle = np.arctan2(down, right) * (ORIENTATIONS / np.pi)  # in bins
    lower = np.floor(angle)
    to_upper = (angle - lower) * length
    to_lower = length - to_upper
    lower = lower.astype(np.int8) % ORIENTATIONS
    for orientation in range(ORIENTATIONS):
        share = np.where(lower == orientation, to_lower, 0.0)
        before = (orientation - 1) % ORIENTATIONS
        yield np.where(lower == before, to_upper, share)


def _pooling(side):
    """Returns [C, S] weights of pixel rows in rows of cells: a triangle two wide."""
    cell = side // CELLS
    position = (np.arange(side) + 0.5) / cell - 0.5
    distance = np.abs(position - np.arange(CELLS)[:, None])
    return np.maximum(0.0, 1.0 - distance)
