"""Pictures that users give a `Classifier`, as features by the model itself."""

import io
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from leo_tf.errors import RequestError, refused
from leo_tf.serving.closed_forms import ClosedForm

SIGNATURE = "embed_images"
# As files begin; what a model takes is in its graph.
_KNOWN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_MOST_BYTES = 2**28  # of a file that is read at all
# Of one request; base64 makes them a third more.
_BYTES_PER_REQUEST, _PICTURES_PER_REQUEST = 2**23, 100
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def are_pictures(values: Any) -> bool:
    """Says whether these are paths, contents of files, or images of Pillow's."""
    if isinstance(values, (str, bytes, os.PathLike)) or not hasattr(values, "__len__"):
        return False
    if hasattr(values, "toarray") or len(getattr(values, "shape", (0,))) != 1:
        return False  # numbers, or a sparse array: for others to judge
    first = next(iter(values), None)
    return isinstance(first, (str, bytes, os.PathLike)) or _is_image(first)


def embedded(model: Callable[..., Any], values: Iterable[Any]) -> np.ndarray:
    """Returns the features [n, D] of n pictures, as the model makes them.

    Raises:
      RequestError: naming the first picture that is none, or that the model refuses;
        or if the model takes none.
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
        if SIGNATURE in str(error):  # there is no such signature
            raise _takes_none() from None
        if len(contents) > 1:  # the first that is refused by itself
            for content, name in zip(contents, names):
                _asked(model, [content], [name])
            raise
        raise RequestError(f"{names[0]}: {error}") from None


def _takes_none() -> RequestError:
    expected = "numbers [rows, D], made as for training: this model takes no pictures"
    return refused("features", expected, "pictures")


def _name(value: Any, number: int) -> str:
    is_path = isinstance(value, (str, os.PathLike))
    return os.fspath(value) if is_path else f"picture {number}"


def _content(value: Any, name: str) -> bytes:
    """The bytes of a picture's file."""
    if _is_image(value):
        file = io.BytesIO()
        image = value if value.mode in _PNG_MODES else value.convert("RGB")
        image.save(file, "PNG", exif=value.getexif())  # it may say: turn it
        return file.getvalue()
    if isinstance(value, (str, os.PathLike)):
        try:
            with open(value, "rb") as opened:
                value = opened.read(_MOST_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise refused(name, "a file that can be read", reason) from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        expected = "a path, the bytes of a file, or an image of Pillow's"
        raise refused(name, expected, type(value).__name__)
    if not bytes(value[:8]).startswith(_KNOWN):
        expected = "JPEG or PNG (of others, give what PIL.Image.open returns)"
        raise refused(name, expected, f"bytes that begin with {bytes(value[:8])!r}")
    return bytes(value)


def _is_image(value: Any) -> bool:
    """Says whether it is one of Pillow's, which need not be installed."""
    return hasattr(value, "getexif") and hasattr(value, "convert")
