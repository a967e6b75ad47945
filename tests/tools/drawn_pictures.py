"""Files of pictures, made here: smooth, with noise, in any kind that Pillow writes.

Shapes: H x W pixels, C channels.
"""

import io

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """[H, W, C] uint8: waves, with noise."""
    y, x = np.mgrid[:height, :width]
    waves = [
        127 + 120 * np.sin(x / (3 + 5 * c + seed) + y / (7 + c))
        for c in range(channels)
    ]
    noise = np.random.default_rng(seed).normal(0, 12, [height, width, channels])
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str) -> bytes:
    """A file whose EXIF data say how it is to be turned."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[ORIENTATION] = orientation
    return encoded(photo(40, 50), kind, exif=exif)
