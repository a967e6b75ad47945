"""JSON as others read it, too: strict when written, bounded when read."""

import json
import math
import os
import pathlib
import stat


def to_json(value) -> bytes:
    """A JSON text; NaN and infinity, which JSON has not, become null.

    Args:
      value: dicts, lists, tuples, texts, numbers, booleans and None.
    """
    return json.dumps(_strict(value), indent=1, allow_nan=False).encode()


def finite(number: float | None) -> float | None:
    """The number, or None if it is none that JSON can hold."""
    return None if number is None or not math.isfinite(number) else number


def read_json(path: pathlib.Path, most_bytes: int):
    """What a JSON file holds.

    Args:
      path: of the file.
      most_bytes: a larger file is refused before it is read: a parser takes some
        thirty times the size of the worst text.

    Raises:
      OSError: if it is not there, or the disk fails to read it.
      ValueError: if it is no regular file, too large, or not JSON.
    """
    # Asked before it is opened: opening a pipe without a writer never returns.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"{status.st_size} bytes, more than {most_bytes}")
    with open(path, "rb") as file:
        text = file.read(most_bytes + 1)  # it may grow meanwhile
    try:
        return json.loads(text[:most_bytes].decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _strict(value):
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(each) for each in value]
    return finite(value) if isinstance(value, float) else value
