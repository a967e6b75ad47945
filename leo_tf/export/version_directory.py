"""Directories of exported versions: complete or missing, and never changed."""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256

import tensorflow as tf

from leo_tf.configs import rules
from leo_tf.errors import DiskError, FlagError
from leo_tf.files import AnyPath, flush_to_disk, make_directory

_DAY = 86_400.0  # seconds, longer than any export takes


def version_path(export_dir: AnyPath, version: int | None = None) -> pathlib.Path:
    """Returns the path of a new version: the highest plus one, unless given.

    Raises:
      FlagError: if the version exists.
      DiskError: if the directory cannot be read.
    """
    rules.path().checked(os.fspath(export_dir), "export_dir")
    if version is None:
        version = newest(export_dir) + 1
    path = pathlib.Path(export_dir, str(version))
    if os.path.lexists(path):
        raise _taken(path, "Without the flag the next number is used.")
    return path


def newest(export_dir: AnyPath) -> int:
    """Returns the highest version in a directory; 0 without any."""
    try:
        names = os.listdir(export_dir)
    except FileNotFoundError:
        names = []
    except NotADirectoryError:
        expected = "a directory, or none yet"
        raise FlagError("--export_dir", expected, f"{export_dir}, a file") from None
    except OSError as error:
        raise DiskError(str(export_dir), "to read it", str(error)) from error
    return max((int(n) for n in names if re.fullmatch("[0-9]+", n)), default=0)


@contextlib.contextmanager
def whole_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty directory, which is renamed to `path` when the block ends.

    Every file is flushed to the disk first. A failure removes the directory.

    Raises:
      FlagError: if `path` exists by then.
      DiskError: if it cannot be written.
    """
    unfinished = path.with_name(f".unfinished-{path.name}-{secrets.token_hex(4)}")
    for left in path.parent.glob(".unfinished-*"):  # by killed exports
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
    try:
        make_directory(unfinished)
        yield unfinished
        for file in [*unfinished.rglob("*"), unfinished]:
            flush_to_disk(file)
        unfinished.rename(path)  # fails if `path` has any file
        flush_to_disk(path.parent)
    except (OSError, tf.errors.OpError) as error:
        if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST):
            hint = "Another export has just written it. Run the command again."
            raise _taken(path, hint) from error
        raise DiskError(str(path), "to write a version", str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def digests(directory: pathlib.Path) -> dict[str, str]:
    """Returns path below the directory -> SHA-256 of all its files."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {
        file.relative_to(directory).as_posix(): sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _taken(path: pathlib.Path, hint: str) -> FlagError:
    expected = "a new version"
    hint = f"Versions are never overwritten. {hint}"
    return FlagError("--export_version", expected, f"{path.name}, which exists", hint)


def check_one_format(export_dir: AnyPath, is_lite: bool) -> None:
    """Refuses to mix formats: a server could not load a newest version of another."""
    other = "saved_model.pb" if is_lite else "model.tflite"
    try:
        file = next(pathlib.Path(export_dir).glob(f"[0-9]*/{other}"), None)
    except OSError as error:
        raise DiskError(str(export_dir), "to read it", str(error)) from error
    if file:
        expected = "a directory of one format, because servers take its newest version"
        raise FlagError("--export_dir", expected, f"one with {file}")
