"""Views of a picture for a backbone: the whole, its center, or ten crops.

Shapes: n pictures, R pixels a side as they are decoded, S as the backbone gets them.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this module, and must not wait
    import numpy as np

VIEWS = ("whole", "center", "multiview")
# The paper's crops are 80 of 92 pixels (arXiv:1807.05960, on pre-training).
_MARGIN = 92 / 80


def decoded_side(side: int, views: str) -> int:
    """Returns R for pictures of S pixels: S, or more to leave a margin to crop."""
    return side if views == "whole" else round(side * _MARGIN)


def embed_views(
    embed: Callable[[Any], Any],
    pictures: "np.ndarray",
    side: int,
    views: str,
) -> "np.ndarray":
    """Returns features [n, D] of pictures [n, R, R, 3], averaged over views.

    Args:
      views: one of `VIEWS`. "multiview" is the four corners and the center, and all of
        them mirrored, as the release's "multiview" embeddings are averages of crops.
    """
    if views == "whole":
        return embed(pictures)
    if views == "center":
        return embed(next(_crops(pictures, side)))
    total: Any = 0.0
    for crop in _crops(pictures, side):
        total = total + embed(crop) + embed(crop[:, :, ::-1])
    return total / 10.0


def _crops(pictures: "np.ndarray", side: int) -> Iterator["np.ndarray"]:
    """Yields the center, then the corners: [n, S, S, 3] each."""
    most = pictures.shape[1] - side
    middle = most // 2
    for top, left in ((middle, middle), (0, 0), (0, most), (most, 0), (most, most)):
        yield pictures[:, top : top + side, left : left + side]
