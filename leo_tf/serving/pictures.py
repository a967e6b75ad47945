"""Turns pictures given to a `Classifier` into features by the model itself."""

import io
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from leo_tf.errors import RequestError, refused
from leo_tf.serving.closed_forms import ClosedForm

SIGNATURE = "embed_images"
# First bytes of JPEG and PNG files. The model's graph checks the rest.
_KNOWN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_MOST_BYTES = 2**28  # read of a file
# Limits of one request. Base64 adds a third.
_BYTES_PER_REQUEST, _PICTURES_PER_REQUEST = 2**23, 100
# Of images of Pillow's, as PNG files; four bytes per pixel are less than models take.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_REDUCED_MODES, _SEE_THROUGH = ("L", "LA", "RGB", "RGBA"), ("P", "PA", "RGBa")
_MOST_PIXELS = 4_000_000


def are_pictures(values: Any) -> bool:
    """Tells whether these are paths, contents of files, or Pillow images."""
    if isinstance(values, (str, bytes, os.PathLike)) or not hasattr(values, "__len__"):
        return False
    if hasattr(values, "toarray") or len(getattr(values, "shape", (0,))) != 1:
        return False  # numbers, or a sparse array, which are checked elsewhere
    first = next(iter(values), None)
    return isinstance(first, (str, bytes, os.PathLike)) or _is_image(first)


def embedded(model: Callable[..., Any], values: Iterable[Any]) -> np.ndarray:
    """Returns the features [n, D] of n pictures, computed by the model.

    Raises:
      RequestError: if a picture is invalid or the model refuses it (it names the first
        one), or the model takes no pictures.
    """
    values = list(values)
    names = [_name(value, i) for i, value in enumerate(values)]
    contents = [_content(value, name) for value, name in zip(values, names)]
    parts, first = [], 0
    while first < len(contents):
        last, size = first + 1, len(contents[first])
        while last < len(contents) and last - first < _PICTURES_PER_REQUEST:
            size += len(contents[last])
            if size > _BYTES_PER_REQUEST:
                break
            last += 1
        parts.append(_asked(model, contents[first:last], names[first:last]))
        first = last
    return np.concatenate(parts)


def _asked(
    model: Callable[..., Any], contents: list[bytes], names: list[str]
) -> np.ndarray:
    if isinstance(model, ClosedForm):
        raise _takes_none()
    images = np.empty(len(contents), object)
    images[:] = contents
    try:
        return model(SIGNATURE, {"images": images})["features"]
    except RequestError as error:
        if SIGNATURE in str(error):  # the signature is missing
            raise _takes_none() from None
        if len(contents) == 1:
            raise RequestError(f"{names[0]}: {error}") from None
        half = len(contents) // 2  # too many at once, or one of them is refused
        parts = slice(None, half), slice(half, None)
        each = [_asked(model, contents[part], names[part]) for part in parts]
        return np.concatenate(each)


def _takes_none() -> RequestError:
    expected = "numbers [rows, D], made as for training: this model takes no pictures"
    return refused("features", expected, "pictures")


def _name(value: Any, number: int) -> str:
    is_path = isinstance(value, (str, os.PathLike))
    return os.fspath(value) if is_path else f"picture {number}"


def _content(value: Any, name: str) -> bytes:
    """Returns the bytes of a picture's file."""
    if _is_image(value):
        try:
            return _png(value)
        except (ValueError, OSError) as error:  # Pillow's, also of damaged files
            raise refused(name, "an image that PNG can hold", str(error)) from None
    if isinstance(value, (str, os.PathLike)):
        try:
            with open(value, "rb") as opened:
                value = opened.read(_MOST_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise refused(name, "a file that can be read", reason) from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        expected = "a path, the bytes of a file, or a Pillow image"
        raise refused(name, expected, type(value).__name__)
    if not bytes(value[:8]).startswith(_KNOWN):
        expected = "JPEG or PNG (other formats can be opened with PIL.Image.open)"
        raise refused(name, expected, f"bytes that begin with {bytes(value[:8])!r}")
    return bytes(value)


def _png(image: Any) -> bytes:
    """An image of Pillow's as a file: smaller where a model would refuse its size."""
    file, exif = io.BytesIO(), image.getexif()  # which may say: turn it
    factor = math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS))
    if image.mode == "I":
        image = image.convert("I;16")
    if factor > 1 and image.mode == "I;16":
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    if image.mode not in (_REDUCED_MODES if factor > 1 else _PNG_MODES):
        image = image.convert("RGBA" if image.mode in _SEE_THROUGH else "RGB")
    if factor > 1:
        image = image.reduce(factor)
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


def _is_image(value: Any) -> bool:
    """Tells whether it is a Pillow image, without importing Pillow."""
    return hasattr(value, "getexif") and hasattr(value, "convert")
