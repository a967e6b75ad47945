"""A directory of numbered versions, each whole or not there, and never changed."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256

import tensorflow as tf

from leo_tf.errors import DiskError, FlagError
from leo_tf.files import AnyPath, flush_to_disk, make_directory


def version_path(export_dir: AnyPath, version: int | None = None) -> pathlib.Path:
    """Returns the path of a new version: one more than the highest, unless given.

    Raises:
      FlagError: if the version is there already.
      DiskError: if the directory cannot be read.
    """
    if version is None:
        try:
            names = os.listdir(export_dir)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise DiskError(str(export_dir), "to read it", str(error)) from error
        numbers = [int(name) for name in names if re.fullmatch("[0-9]+", name)]
        version = max(numbers, default=0) + 1
    path = pathlib.Path(export_dir, str(version))
    if os.path.lexists(path):
        raise _taken(path, "Without the flag it is a new one.")
    return path


@contextlib.contextmanager
def whole_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty directory, which becomes `path` at once when the block ends.

    By then every file in it is on the disk; if the block fails, it goes.

    Raises:
      FlagError: if `path` is there by then.
      DiskError: if it cannot be written.
    """
    unfinished = path.with_name(f".unfinished-{path.name}-{os.getpid()}")
    try:
        make_directory(unfinished)
        yield unfinished
        for file in [*unfinished.rglob("*"), unfinished]:
            flush_to_disk(file)
        unfinished.rename(path)  # fails where there is anything in `path`
        flush_to_disk(path.parent)
    except (OSError, tf.errors.OpError) as error:
        if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST):
            hint = "Another export has just made it. Run the command again."
            raise _taken(path, hint) from error
        raise DiskError(str(path), "to write a version", str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def digests(directory: pathlib.Path) -> dict[str, str]:
    """Returns path below the directory -> SHA-256, of every file in it."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {
        file.relative_to(directory).as_posix(): sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _taken(path: pathlib.Path, hint: str) -> FlagError:
    expected = "a version that is not there yet"
    hint = f"Versions are never written over. {hint}"
    return FlagError("--export_version", expected, f"{path.name}, which is", hint)
