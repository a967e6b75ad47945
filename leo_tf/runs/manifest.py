"""manifest.json of a checkpoint: what its files are, and what its run says of itself.

A checkpoint may come from anybody. Nothing here trusts its manifest: a name leads out
of no directory, and a size is compared before a file is read.
"""

import hashlib
import os
import pathlib
import stat
from typing import Any, NamedTuple

from leo_tf.errors import CheckpointError, shown
from leo_tf.files import read_json, to_json

NAME = "manifest.json"
# Of the manifest; to be raised when a field it must have is added or changes.
FORMAT = 1
# Some 150,000 validations; nobody's manifest is larger, or the parser's memory.
MOST_BYTES = 2**25
_BLOCK_BYTES = 2**20


class UnreadableError(CheckpointError):
    """The disk failed to read a checkpoint, which may be whole nevertheless."""


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, found whole: where it is and what its manifest says."""

    path: pathlib.Path
    step: int
    manifest: dict

    def fact(self, name: str, kind: type) -> Any:
        """What the manifest says of `name`.

        Raises:
          CheckpointError: if it says nothing, or something of another type.
        """
        value = self.manifest.get(name)
        if type(value) is not kind:
            where = f"{self.path / NAME}: `{name}`"
            raise CheckpointError(where, f"a {kind.__name__}", shown(value))
        return value


def make(directory: pathlib.Path, step: int, facts: dict) -> bytes:
    """The manifest of a checkpoint's written files and other facts, as JSON.

    Raises:
      OSError: if a file cannot be read, or the manifest is too large to be read again,
        or there is anything but files: what TensorFlow failed to remove.
    """
    try:
        files = {file.name: _digest(file) for file in sorted(directory.iterdir())}
    except ValueError as error:
        raise OSError(f"{directory}: {error}") from error
    return _encoded({**facts, "format": FORMAT, "step": step, "files": files})


def changed(manifest: dict, facts: dict) -> bytes:
    """A manifest of the same files, and other facts; an OSError if it is too large."""
    kept = {field: manifest[field] for field in ("format", "step", "files")}
    return _encoded({**facts, **kept})


def read(directory: pathlib.Path, step: int) -> Checkpoint:
    """The checkpoint in a directory, every file compared with its digest.

    Raises:
      UnreadableError: if the disk fails.
      CheckpointError: if the checkpoint is not there, not whole, or another step's.
    """
    path = directory / NAME
    try:
        manifest = read_json(path, MOST_BYTES)
        _check(manifest, path, step)
        for name, expected in manifest["files"].items():
            path = directory / name
            received = _digest(path, expected.get("size"))
            if received != expected:
                raise CheckpointError(str(path), shown(expected), shown(received))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        where, expected = str(path), "a readable checkpoint"
        raise CheckpointError(where, expected, shown(str(error))) from error
    except OSError as error:
        hint = "Try again. If the disk has lost it for good, move the directory away."
        where, disk = str(path), "a disk that can be read"
        raise UnreadableError(where, disk, shown(str(error)), hint) from error
    return Checkpoint(directory, step, manifest)


def _encoded(manifest: dict) -> bytes:
    text = to_json(manifest)
    if len(text) > MOST_BYTES:
        raise OSError(
            "more validations than a manifest can hold: raise --validate_every"
        )
    return text


def _check(manifest, path: pathlib.Path, step: int):
    if not isinstance(manifest, dict):
        raise ValueError("no object with named fields")
    for name, expected in (("format", FORMAT), ("step", step)):
        received = manifest.get(name)
        if received != expected or type(received) is not int:
            received = f"{name} {shown(received)}"
            raise CheckpointError(str(path), f"{name} {expected}", received)
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{path}: `files`", "names of files", shown(files))
    for name, digest in files.items():
        is_below = name == os.path.basename(name) and name not in ("", ".", "..")
        if not (is_below and name.isprintable() and isinstance(digest, dict)):
            where = f"{path}: `files`"
            raise CheckpointError(where, "files of this directory", shown(name))


def _digest(path: pathlib.Path, size=None) -> dict:
    """Size and SHA-256; of a file of another size than `size` the former only."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if size not in (None, status.st_size):
        return {"size": status.st_size}
    sha, left = hashlib.sha256(), status.st_size
    with path.open("rb") as file:
        while block := file.read(min(left, _BLOCK_BYTES)):
            sha.update(block)
            left -= len(block)
    return {"size": status.st_size - left, "sha256": sha.hexdigest()}
