"""Arrays that were costly to make, kept in the user's cache directory.

A cached file is an npz archive, followed by its SHA-256: `numpy.load` reads it, and a
file that was damaged or cut short is never taken for a good one.
"""

import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_tf.errors import DiskError
from leo_tf.files import write_file

DIRECTORY_VARIABLE = "LEO_TF_CACHE"
_SEAL_BYTES = hashlib.sha256().digest_size


def locate(file_name: str, directory: str | None = None) -> pathlib.Path | None:
    """Returns where a file is kept; None if there is no home directory.

    Its name says all that the arrays depend on. The directory is by default what
    `LEO_TF_CACHE` says, or else `leo_tf` in the user's cache directory
    (`XDG_CACHE_HOME`, or else `~/.cache`).
    """
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    if directory:
        return pathlib.Path(directory, file_name)
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # the XDG rules ignore a relative one
        caches = os.path.expanduser("~/.cache")
    return pathlib.Path(caches, "leo_tf", file_name) if os.path.isabs(caches) else None


def read(path: pathlib.Path | None) -> dict[str, np.ndarray] | None:
    """Returns the arrays, or None if there is no such file or its seal is broken."""
    try:
        # Asked before: opening a pipe never returns, and a device never ends.
        content = path.read_bytes() if path and path.is_file() else b""
    except OSError:
        return None
    # The seal is checked before anything is parsed, so no parser meets damage.
    content, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if hashlib.sha256(content).digest() != seal:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def write(path: pathlib.Path | None, arrays: Mapping[str, Any]) -> None:
    """Keeps the arrays at `path`; only warns if that cannot be done."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    content.write(hashlib.sha256(content.getvalue()).digest())
    try:
        if path is None:
            raise DiskError("cache", "a home directory", "none")
        write_file(path, content.getbuffer())
    except DiskError as error:
        warnings.warn(
            f"{path.name if path else 'The data'} cannot be cached ({error}), "
            f"so each run makes it again. Set {DIRECTORY_VARIABLE} to a directory that "
            "can be written.",
            stacklevel=3,
        )
