"""Files that are whole or not there, whenever the process or the machine stops."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import BinaryIO

from configs.errors import DiskError


def write_file(path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Replaces a file at once: a reader finds the old content or the new, whole.

    Args:
      path: of the file; its directory is made if it is missing.
      content: the bytes, or a function that writes them to a binary file.

    Raises:
      DiskError: if that fails; the old file is still there.
    """
    path = pathlib.Path(path)
    # Of one process, so that of two that write at once the later one wins.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_directory(path.parent)
        with beside.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        flush_to_disk(beside)
        beside.replace(path)
        flush_to_disk(path.parent)
    except OSError as error:
        raise DiskError(str(path), "to write a file", str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def make_directory(path: pathlib.Path) -> None:
    """Makes a directory and its parents where need be, their names flushed.

    Raises:
      OSError: if that fails.
    """
    try:
        path.mkdir()
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_directory(path.parent)
        # Once more only: in /proc, or where the directory was removed, it never works.
        path.mkdir(exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    flush_to_disk(path.parent)


def flush_to_disk(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a directory, would survive a power cut.

    Raises:
      OSError: if the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
