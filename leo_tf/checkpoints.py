"""Checkpoints that are whole or not there, and a pointer to the best of them.

A checkpoint is a directory `step-NNNNNNNN` with TensorFlow's checkpoint files and a
manifest that holds their digests. It is written under another name, flushed to the
disk and renamed once; so what has its name is complete, whenever the machine stops.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from configs.errors import CheckpointError, DiskError, shown
from data_pipeline.whole_file import flush_to_disk, make_directory, write_file
from leo_tf.saved_variables import restore_variables, save_variables

_NAME = r"step-(\d{8,})"
_UNFINISHED = "unfinished-"
_UNUSABLE = "unusable-"
_MANIFEST = "manifest.json"
_BEST = "checkpoint.json"
# Of the manifest; to be raised when a field it must have is added or changes.
_FORMAT = {"format": 1}
_BLOCK_BYTES = 2**20


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, found whole: where it is and what its manifest says."""

    path: pathlib.Path
    step: int
    manifest: dict


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
      workdir: the run directory; `checkpoints/` and `best/` are below it.
      keep: how many of the newest to keep; the best is kept besides.
    """

    def __init__(self, workdir, keep: int = 3):
        self.directory = pathlib.Path(workdir) / "checkpoints"
        self.best_pointer = pathlib.Path(workdir) / "best" / _BEST
        self.keep = keep

    def save(self, step: int, variables: Mapping[str, tf.Variable], manifest: dict):
        """Writes a checkpoint; one that is already there stays as it is.

        Args:
          step: meta-steps done.
          variables: name -> variable.
          manifest: anything JSON can hold; `step` and `files` are added to it.

        Raises:
          DiskError: if it cannot be written; nothing half-written keeps its name.
        """
        path, temporary = self._path(step), self._path(step, _UNFINISHED)
        try:
            if path.exists():
                return flush_to_disk(self.directory)  # it may be this that failed
            make_directory(self.directory)
            _remove(temporary)
            temporary.mkdir()
            save_variables(temporary, variables)
            files = {file.name: _digest(file) for file in sorted(temporary.iterdir())}
            manifest = {**manifest, **_FORMAT, "step": step, "files": files}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            for file in [*temporary.iterdir(), temporary]:
                flush_to_disk(file)
            temporary.rename(path)
            flush_to_disk(self.directory)
        except (OSError, tf.errors.OpError) as error:
            _remove(temporary)
            raise DiskError(
                str(path), "to write a checkpoint", f"{error}; {self._free()}"
            ) from error

    def has(self, step: int) -> bool:
        """Whether a checkpoint of the step was saved."""
        return os.path.exists(self._path(step))  # False if the disk fails

    def is_whole(self, step: int) -> bool:
        """Whether the checkpoint of a step is there and undamaged."""
        try:
            return bool(self.load(step))
        except CheckpointError:
            return False

    def annotate(self, checkpoint: Checkpoint, manifest: dict) -> None:
        """Replaces what a manifest says besides step and files; variables stay.

        Raises:
          DiskError: if it cannot be written; the old manifest is still there.
        """
        kept = {k: checkpoint.manifest[k] for k in (*_FORMAT, "step", "files")}
        text = json.dumps({**manifest, **kept}, indent=1)
        write_file(checkpoint.path / _MANIFEST, text.encode())

    def newest(
        self, on_unusable: Callable[[str], None], set_aside: bool = False
    ) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there never was one.

        Args:
          on_unusable: told of each newer one that is passed over, and why.
          set_aside: whether to rename those, so that their step can be written again.

        Raises:
          CheckpointError: if there are checkpoints, yet none is whole. Training does
            not start over by itself.
        """
        unusable = []
        for step in sorted(self._steps(), reverse=True):
            try:
                found = self.load(step)
            except CheckpointError as error:
                on_unusable(f"passed over: {error}")
                unusable.append(step)
                continue
            # Not before one is whole: a disk may fail to read for a moment only.
            for step in unusable if set_aside else ():
                self._set_aside(step)
            return found
        if unusable or any(name.startswith(_UNUSABLE) for name in self._names()):
            raise CheckpointError(
                str(self.directory),
                "a whole checkpoint",
                "only damaged ones",
                "Restore the directory from a copy, or train into another --workdir.",
            )
        return None

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step, its files checked against their digests.

        Raises:
          CheckpointError: if it is not there or not whole.
        """
        path = self._path(step)
        try:
            manifest = json.loads((path / _MANIFEST).read_text())
            files, written = manifest["files"], manifest["step"]
            digests = {name: _digest(path / name) for name in files}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                str(path / _MANIFEST), "a readable checkpoint", shown(str(error))
            ) from error
        if manifest.get("format") != _FORMAT["format"]:
            received = f"format {shown(manifest.get('format'))}"
            raise CheckpointError(str(path), f"format {_FORMAT['format']}", received)
        for name, digest in digests.items():
            if digest != files[name]:
                expected, received = shown(files[name]), shown(digest)
                raise CheckpointError(str(path / name), expected, received)
        if written != step or not files:
            raise CheckpointError(str(path), f"step {step}", f"step {shown(written)}")
        return Checkpoint(path, step, manifest)

    def mark_best(self, step: int) -> None:
        """Makes the checkpoint of `step` the best one."""
        text = json.dumps({"step": step, "directory": self._path(step).name})
        write_file(self.best_pointer, text.encode())

    def best(self) -> Checkpoint:
        """The best checkpoint.

        Raises:
          CheckpointError: if no validation has named one yet, or it is damaged.
        """
        try:
            step = json.loads(self.best_pointer.read_text())["step"]
        except FileNotFoundError:
            raise CheckpointError(
                str(self.best_pointer),
                "a run that has been validated",
                "none",
                "Train first: --mode=train with this --workdir.",
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                str(self.best_pointer), 'JSON with a "step"', shown(str(error))
            ) from error
        if not isinstance(step, int):
            raise CheckpointError(str(self.best_pointer), "a step", shown(step))
        return self.load(step)

    def prune(self) -> None:
        """Removes all but the newest `keep` and the best; nothing else is touched."""
        try:
            steps, unfinished = sorted(self._steps()), self._steps(_UNFINISHED)
            best = json.loads(self.best_pointer.read_text())["step"]
        except FileNotFoundError:
            best = None
        except (OSError, ValueError, KeyError, TypeError):
            return  # nobody can tell which is the best: it might be removed
        for step in steps[: -self.keep]:
            if step != best:
                _remove(self._path(step))
        for step in unfinished:  # by a process that was killed
            _remove(self._path(step, _UNFINISHED))

    def _free(self) -> str:
        try:
            free = shutil.disk_usage(self.directory.parent).free
        except OSError:
            return "free space unknown"
        return f"{free / 2**20:,.0f} MiB free"

    def _path(self, step: int, before: str = "", after: str = "") -> pathlib.Path:
        return self.directory / f"{before}step-{step:08d}{after}"

    def _steps(self, prefix: str = "") -> list[int]:
        matches = (re.fullmatch(prefix + _NAME, name) for name in self._names())
        return [int(match[1]) for match in matches if match]

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            where, expected = str(self.directory), "a readable directory"
            raise CheckpointError(where, expected, shown(str(error))) from error

    def _set_aside(self, step: int):
        path, number = self._path(step), 0
        try:
            while (aside := self._path(step, _UNUSABLE, f"-{number}")).exists():
                number += 1
            path.rename(aside)
        except OSError as error:
            raise DiskError(str(path), "to rename it", str(error)) from error


def _remove(directory: pathlib.Path):
    """Removes a directory, or as much of it as the disk allows."""
    with contextlib.suppress(OSError):  # closing can fail in spite of ignore_errors
        shutil.rmtree(directory, ignore_errors=True)


def _digest(path: pathlib.Path) -> dict:
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
            size += len(block)
    return {"size": size, "sha256": sha.hexdigest()}


def restore(checkpoint: Checkpoint, variables: Mapping[str, tf.Variable]) -> None:
    """Gives variables the values of a checkpoint; see `restore_variables`."""
    restore_variables(checkpoint.path, variables)
