"""manifest.json of a checkpoint: digests of its files, and metadata of its run.

A checkpoint may come from anywhere, so its manifest is not trusted: names must stay
inside the directory, and a file's size is compared before it is read.
"""

import hashlib
import os
import pathlib
import stat
from typing import Any, NamedTuple

from leo_tf.errors import CheckpointError, quoted
from leo_tf.files import read_json, to_json

NAME = "manifest.json"
# Version of the manifest. Raise it when a required field is added or changes.
FORMAT = 1
# Room for some 150,000 validations. It bounds the parser's memory.
MOST_BYTES = 2**25
_BLOCK_BYTES = 2**20


class UnreadableError(CheckpointError):
    """The disk failed to read a checkpoint, which may still be whole."""


class Checkpoint(NamedTuple):
    """A complete checkpoint on the disk: its directory, step and manifest."""

    path: pathlib.Path
    step: int
    manifest: dict

    def entry(self, name: str, kind: type) -> Any:
        """Returns the manifest's value of `name`.

        Raises:
          CheckpointError: if it is missing or of another type.
        """
        value = self.manifest.get(name)
        if type(value) is not kind:
            where = f"{self.path / NAME}: `{name}`"
            raise CheckpointError(where, f"a {kind.__name__}", quoted(value))
        return value


def make(directory: pathlib.Path, step: int, metadata: dict) -> bytes:
    """Returns the JSON manifest of a checkpoint's files and metadata.

    Raises:
      OSError: if a file cannot be read, the manifest is too large to be read again, or
        there is anything but files, such as a directory TensorFlow failed to remove.
    """
    try:
        files = {file.name: _digest(file) for file in sorted(directory.iterdir())}
    except ValueError as error:
        raise OSError(f"{directory}: {error}") from error
    return _encoded({**metadata, "format": FORMAT, "step": step, "files": files})


def changed(manifest: dict, metadata: dict) -> bytes:
    """Returns a manifest of the same files with new metadata.

    Raises an OSError if it is too large.
    """
    kept = {field: manifest[field] for field in ("format", "step", "files")}
    return _encoded({**metadata, **kept})


def read(directory: pathlib.Path, step: int) -> Checkpoint:
    """Returns the checkpoint in a directory after comparing all files with digests.

    Raises:
      UnreadableError: if the disk fails.
      CheckpointError: if the checkpoint is missing, damaged or of another step.
    """
    path = directory / NAME
    try:
        manifest = read_json(path, MOST_BYTES)
        _check(manifest, path, step)
        for name, expected in manifest["files"].items():
            path = directory / name
            received = _digest(path, expected.get("size"))
            if received != expected:
                raise CheckpointError(str(path), quoted(expected), quoted(received))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        where, expected = str(path), "a readable checkpoint"
        raise CheckpointError(where, expected, quoted(str(error))) from error
    except OSError as error:
        hint = "Try again. If the file is lost for good, move the directory away."
        where, disk = str(path), "a disk that can be read"
        raise UnreadableError(where, disk, quoted(str(error)), hint) from error
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
        raise ValueError("not a JSON object")
    for name, expected in (("format", FORMAT), ("step", step)):
        received = manifest.get(name)
        if received != expected or type(received) is not int:
            received = f"{name} {quoted(received)}"
            raise CheckpointError(str(path), f"{name} {expected}", received)
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{path}: `files`", "names of files", quoted(files))
    for name, digest in files.items():
        is_below = name == os.path.basename(name) and name not in ("", ".", "..")
        if not (is_below and name.isprintable() and isinstance(digest, dict)):
            where = f"{path}: `files`"
            raise CheckpointError(where, "files of this directory", quoted(name))


def _digest(path: pathlib.Path, size=None) -> dict:
    """Returns size and SHA-256; only the size if it differs from `size`."""
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
