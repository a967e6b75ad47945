"""Writes files that are complete or absent, whenever the process or machine stops.

JSON is strict when written, so that others read it too, and bounded when read.
"""

import contextlib
import io
import json
import math
import os
import pathlib
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from leo_tf.errors import DiskError

if TYPE_CHECKING:
    import numpy as np

AnyPath = str | os.PathLike[str]
# Exceptions of `zipfile` for a damaged zip; RuntimeError for an encrypted one.
ZIP_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError),
    *(NotImplementedError, OSError, RuntimeError, ValueError),
)


def near(path: AnyPath) -> str:
    """Returns a path as a user would type it: relative if below this directory."""
    try:
        return str(pathlib.Path(path).relative_to(os.getcwd()))
    except (OSError, ValueError):
        return str(path)


def write_file(
    path: AnyPath,
    content: bytes | memoryview | Callable[[BinaryIO], object],
    *,
    lasts: bool = True,
) -> None:
    """Replaces a file at once: readers find the old or the new content, complete.

    Args:
      path: path of the file. Its directory is created if missing.
      content: the bytes, or a function that writes them to a binary file.
      lasts: wait until it is on the disk; False if a power cut may destroy it.

    Raises:
      DiskError: if that fails; the old file is still there.
    """
    target = pathlib.Path(path)
    # Of two writers at once the later one wins: of two threads, or of two containers,
    # where every process may have the same number.
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        make_directory(target.parent)
        with beside.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        if lasts:
            flush_to_disk(beside)
        beside.replace(target)
        if lasts:
            flush_to_disk(target.parent)
    except OSError as error:
        raise DiskError(str(path), "to write a file", str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def make_directory(path: pathlib.Path) -> None:
    """Creates a directory and missing parents, and flushes their names."""
    try:
        path.mkdir()
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_directory(path.parent)
        # Tried only once more: in /proc, or in a removed directory, it never works.
        path.mkdir(exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    flush_to_disk(path.parent)


def flush_to_disk(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any) -> bytes:
    """Returns JSON text. NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_strict(value), indent=1, allow_nan=False).encode()


def finite(number: float | None) -> float | None:
    """Returns the number, or None if JSON cannot store it."""
    return None if number is None or not math.isfinite(number) else number


def read_json(path: pathlib.Path, most_bytes: int = 2**20) -> Any:
    """Returns the content of a JSON file.

    A larger file than `most_bytes` is refused before it is read: a parser takes some
    thirty times the size of the worst text.

    Raises:
      OSError: if it is not there, or the disk fails to read it.
      ValueError: if it is no regular file, too large, or not JSON.
    """
    # Tested before opening, because opening a pipe without a writer never returns.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"{status.st_size} bytes, more than {most_bytes}")
    with open(path, "rb") as file:
        text = file.read(most_bytes + 1)  # the file may have grown
    try:
        return json.loads(text[:most_bytes].decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_npz(path: AnyPath) -> "dict[str, np.ndarray]":
    """Returns the arrays of a file that this package wrote by `np.savez`.

    Files of users are read by `data_pipeline`, which also refuses forged ones.

    Raises:
      OSError: if it is not there, or may not be read.
      ValueError: if it is damaged, or another file.
    """
    import numpy as np

    content = io.BytesIO(
        pathlib.Path(path).read_bytes()
    )  # of this, all errors are damage
    try:
        found = np.load(content, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("one array without a name")
        return dict(found)
    except (*ZIP_DAMAGES, AttributeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(each) for each in value]
    return finite(value) if isinstance(value, float) else value
