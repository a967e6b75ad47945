"""Characters drawn from the fonts in the matplotlib wheel, and distorted at random.

Shape letters: n pictures, G pixels a side of a clean glyph, P of a finished picture.
"""

import functools
import hashlib
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from leo_tf.environment import import_matplotlib
from leo_tf.errors import InputError

# Text faces whose character map is Unicode (that of the cm fonts is not). The first
# face that has a character draws its reference picture.
_UPRIGHT_AND_SLANTED = ("", "-Bold", "-Oblique", "-BoldOblique")
FACES = (
    *(f"DejaVuSans{style}" for style in _UPRIGHT_AND_SLANTED),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"DejaVuSansMono{style}" for style in _UPRIGHT_AND_SLANTED),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
PICTURE_SIDE = 32
_GLYPH_SIDE = 48  # a glyph of 32 and a margin that distortion may reach into
_INK_SIDE = 32
_FONT_SIZE = 96  # large, so that hinting and its version hardly matter
_INK_SHARE = 0.7  # of the finished picture's side, before distortion

# How strongly pictures differ: half-widths of uniform ranges. Together they put
# nearest centroid at two thirds, 5-way 1-shot, and leave room to learn what a new
# script keeps to as well: slant, width, stroke and dirt say nothing about the class.
_ROTATION = 0.15  # radians
_SLANT = 0.35  # tangent of the angle
_WIDTH = 0.15  # log of width over height
_SCALE = 0.12  # log
_SHIFT = 0.1  # of half the picture
_WOBBLE = 0.08  # of half the picture, at each knot
_THICKER = 0.8  # share of the way to a stroke one pixel wider on each side
_THINNER = 0.6  # the same towards a thinner one: 1 would wipe out thin strokes
_NOISE = 0.12  # of full ink
_CONTRAST = (0.5, 1.0)  # lightest and darkest ink
_KNOTS = 4  # a side, of the grid that wobbles
_SINGLE = 10  # random numbers used one by one in `distort`
NUM_DRAWS = _SINGLE + 2 * _KNOTS**2


class Fonts:
    """The font files and the characters each of them has.

    Raises:
      InputError: if a file is not where the matplotlib wheel puts it.
    """

    def __init__(self):
        # Slow, and needed for its path and font reader only.
        data = import_matplotlib().get_data_path()
        folder = pathlib.Path(data, "fonts", "ttf")
        self._paths = {face: folder / f"{face}.ttf" for face in FACES}
        for path in self._paths.values():
            if not path.is_file():
                hint = "Install matplotlib with pip: its wheel holds the fonts."
                raise InputError(str(path), "a font of matplotlib", "no file", hint)

    def digest(self) -> str:
        """SHA-256 of the font files, in hexadecimal."""
        contents = b"".join(path.read_bytes() for path in self._paths.values())
        return hashlib.sha256(contents).hexdigest()

    @functools.cached_property
    def faces_of(self) -> dict[str, list[str]]:
        """Maps every character of any face to the faces that have it."""
        from matplotlib.ft2font import FT2Font

        faces_of: dict[str, list[str]] = {}
        for face, path in self._paths.items():
            for code in FT2Font(str(path)).get_charmap():
                faces_of.setdefault(chr(code), []).append(face)
        return faces_of

    def draw(self, character: str, face: str) -> np.ndarray | None:
        """Returns the centred character, [G, G] uint8 with ink 255; None if blank."""
        paper = Image.new("L", (4 * _FONT_SIZE, 4 * _FONT_SIZE))
        corner, font = (_FONT_SIZE, _FONT_SIZE), _font(self._paths[face])
        ImageDraw.Draw(paper).text(corner, character, fill=255, font=font)
        box = paper.getbbox()
        if box is None:
            return None
        ink = (_INK_SIDE, _INK_SIDE)
        glyph = ImageOps.pad(paper.crop(box), ink, Image.Resampling.BILINEAR)
        return np.asarray(ImageOps.expand(glyph, (_GLYPH_SIDE - _INK_SIDE) // 2))


@functools.cache
def _font(path: pathlib.Path) -> ImageFont.FreeTypeFont:
    basic = ImageFont.Layout.BASIC  # one character needs no shaping library
    return ImageFont.truetype(path, _FONT_SIZE, layout_engine=basic)


def distort(glyphs: np.ndarray, draws: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns glyphs distorted at random, [n, P, P] uint8 with bright ink.

    Args:
      glyphs: [n, G, G] uint8.
      draws: [n, NUM_DRAWS] in [-1, 1); zeros leave the glyph straight.
      noise: [n, P, P] in [-1, 1).
    """
    single = draws[:, :_SINGLE].T[:, :, None]  # [10, n, 1]
    pictures = _sample(glyphs / 255.0, *_glyph_points(single[:6], draws[:, _SINGLE:]))
    stroke, blur, contrast, dirt = single[6:, :, :, None]  # each [n, 1, 1]
    pictures = _with_stroke(pictures, stroke)
    pictures += (_smooth(pictures) - pictures) * (blur + 1) / 2
    low, high = _CONTRAST
    pictures *= low + (high - low) * (contrast + 1) / 2
    pictures += _NOISE * (dirt + 1) / 2 * noise
    return np.rint(255 * np.clip(pictures, 0.0, 1.0)).astype(np.uint8)


def _glyph_points(single, wobble):
    """Returns x and y [n, P * P]: the place in the glyph that each pixel shows."""
    rotation, slant, width, scale, right, down = single
    along = np.linspace(-1.0, 1.0, PICTURE_SIDE)
    bend_x, bend_y = np.split(_WOBBLE * wobble, 2, axis=1)
    x = np.tile(along, PICTURE_SIDE) - _SHIFT * right + bend_x @ _knot_weights().T
    y = np.repeat(along, PICTURE_SIDE) - _SHIFT * down + bend_y @ _knot_weights().T
    cos, sin = np.cos(_ROTATION * rotation), np.sin(_ROTATION * rotation)
    x, y = cos * x + sin * y, cos * y - sin * x
    x = (x + _SLANT * slant * y) * np.exp(-_WIDTH * width - _SCALE * scale)
    y = y * np.exp(_WIDTH * width - _SCALE * scale)
    zoom, middle = _INK_SIDE / 2 / _INK_SHARE, (_GLYPH_SIDE - 1) / 2
    return x * zoom + middle, y * zoom + middle


@functools.cache
def _knot_weights():
    """Returns [P * P, knots] smooth weights of the grid's knots for each pixel."""
    position = np.linspace(0, _KNOTS - 1, PICTURE_SIDE)
    near = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(_KNOTS)))
    near = near * near * (3 - 2 * near)  # [P, K]
    return np.kron(near, near)


def _sample(glyphs, x, y):
    """Returns a bilinear look-up [n, P, P]; beyond the empty edge it is empty too."""
    last = _GLYPH_SIDE - 1
    x, y = np.clip(x, 0, last), np.clip(y, 0, last)
    left, top = (np.minimum(at, last - 1).astype(np.intp) for at in (x, y))
    x, y = x - left, y - top
    flat = glyphs.reshape(len(glyphs), -1)
    corner = top * _GLYPH_SIDE + left
    upper, lower = (
        np.take_along_axis(flat, corner + row, 1) * (1 - x)
        + np.take_along_axis(flat, corner + row + 1, 1) * x
        for row in (0, _GLYPH_SIDE)
    )
    pictures = upper * (1 - y) + lower * y
    return pictures.reshape(-1, PICTURE_SIDE, PICTURE_SIDE)


def _with_stroke(pictures, stroke):
    """Grows or shrinks the ink by up to a pixel on each side."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    across = (padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    near = (pictures, padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], *across)
    thicker = np.maximum.reduce(near) - pictures
    thinner = pictures - np.minimum.reduce(near)
    change = np.where(stroke > 0, _THICKER * thicker, _THINNER * thinner)
    return pictures + stroke * change


def _smooth(pictures):
    """Returns weighted means over 3 x 3 pixels: 4 for the middle, 1 for corners."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
