"""Checkpoints, each whole or absent, and a pointer to the best of them.

A checkpoint is a directory `step-NNNNNNNN` with TensorFlow's checkpoint files and a
manifest of their digests. It is written under another name, flushed to the disk and
renamed once. So a directory of this name is complete, whenever the machine stops.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping

import tensorflow as tf

from leo_tf.errors import CheckpointError, DiskError, quoted
from leo_tf.files import (
    AnyPath,
    flush_to_disk,
    make_directory,
    read_json,
    to_json,
    write_file,
)
from leo_tf.runs import manifest as checkpoint_manifest
from leo_tf.runs.manifest import Checkpoint, UnreadableError
from leo_tf.runs.variables import save_variables

_NAME = r"step-([0-9]{8,})"
_UNFINISHED = "unfinished-"
_UNUSABLE = "unusable-"
# Files that training writes only after a checkpoint.
_TRACES = ("results.json", "learning_curve.png")
# Undamaged checkpoints that stay, however few are to be kept.
_KEPT_WHOLE = 2


class Checkpoints:
    """The checkpoints of a run directory: the `keep` newest, and the best."""

    def __init__(self, workdir: AnyPath, keep: int = 3):
        self.workdir = pathlib.Path(workdir)
        self.directory = self.workdir / "checkpoints"
        self.best_pointer = self.workdir / "best" / "checkpoint.json"
        self.keep = keep

    def save(
        self, step: int, variables: Mapping[str, tf.Variable], manifest: dict
    ) -> None:
        """Writes a checkpoint. An existing one stays unchanged.

        The manifest is anything JSON can hold; `step` and `files` are added to it.

        Raises:
          DiskError: if it cannot be written. No partial checkpoint keeps its name.
        """
        path, temporary = self._path(step), self._path(step, _UNFINISHED)
        try:
            if path.exists():
                return flush_to_disk(self.directory)  # the last one may have failed
            make_directory(self.directory)
            _remove(temporary)
            temporary.mkdir()
            save_variables(temporary, variables)
            text = checkpoint_manifest.make(temporary, step, manifest)
            (temporary / checkpoint_manifest.NAME).write_bytes(text)
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
        """Returns whether a checkpoint of the step exists; False if the disk fails."""
        return os.path.exists(self._path(step))

    def is_whole(
        self, step: int, on_unusable: Callable[[str], None] = lambda reason: None
    ) -> bool:
        """Returns whether a checkpoint is complete; otherwise tells `on_unusable` why.

        Raises:
          CheckpointError: if the disk fails, because the answer is unknown then.
        """
        try:
            return bool(self.load(step))
        except UnreadableError:
            raise
        except CheckpointError as error:
            on_unusable(str(error))
            return False

    def annotate(self, checkpoint: Checkpoint, manifest: dict) -> None:
        """Replaces a manifest except its step and files. Variables stay.

        Raises:
          DiskError: if it cannot be written. The old manifest stays then.
        """
        path = checkpoint.path / checkpoint_manifest.NAME
        try:
            text = checkpoint_manifest.changed(checkpoint.manifest, manifest)
        except OSError as error:
            raise DiskError(str(path), "to write it", str(error)) from error
        write_file(path, text)

    def newest(
        self, on_unusable: Callable[[str], None], set_aside: bool = False
    ) -> Checkpoint | None:
        """Returns the newest complete checkpoint; None if there are no traces of any.

        Args:
          on_unusable: called with the reason for each newer one that is skipped.
          set_aside: rename skipped ones, to allow their steps to be written again.

        Raises:
          CheckpointError: if none is whole although there are traces of some, or the
            disk fails to read one. Training does not start over by itself.
        """
        unusable = []
        for step in sorted(self._steps(), reverse=True):
            try:
                found = self.load(step)
            except UnreadableError:
                raise  # it may be whole: resuming from an older one would lose steps
            except CheckpointError as error:
                on_unusable(f"skipped: {error}")
                unusable.append(step)
                continue
            # Only once a whole one is found: read failures may be temporary.
            for step in unusable if set_aside else ():
                self.set_aside(step)
            return found
        damaged = unusable or any(n.startswith(_UNUSABLE) for n in self._names())
        received = "only damaged ones" if damaged else self._traces()
        if received:
            where, expected = str(self.directory), "a complete checkpoint"
            hint = "Restore the directory from a backup, or use another --workdir."
            raise CheckpointError(where, expected, received, hint)
        return None

    def load(self, step: int) -> Checkpoint:
        """Returns a step's checkpoint.

        Raises a CheckpointError if it is missing or damaged.
        """
        return checkpoint_manifest.read(self._path(step), step)

    def set_aside(self, step: int) -> None:
        """Renames the damaged checkpoint of a step, if it exists.

        Raises:
          DiskError: if that fails.
        """
        path, number = self._path(step), 0
        try:
            while (aside := self._path(step, _UNUSABLE, f"-{number}")).exists():
                number += 1
            path.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise DiskError(str(path), "to rename it", str(error)) from error

    def mark_best(self, step: int) -> None:
        """Makes the checkpoint of `step` the best one.

        Raises:
          DiskError: if that fails. The old one stays the best.
        """
        pointer = {"step": step, "directory": self._path(step).name}
        write_file(self.best_pointer, to_json(pointer))

    def best(self) -> Checkpoint:
        """Returns the best checkpoint.

        Raises:
          CheckpointError: if there was no validation yet, or it is damaged.
        """
        step = _read_pointer(self.best_pointer)
        if step is None:
            where, expected = str(self.best_pointer), "a run that has been validated"
            hint = "Train first: --mode=train with this --workdir."
            raise CheckpointError(where, expected, "none", hint)
        try:
            return self.load(step)
        except CheckpointError:
            if not self.was_replaced(step):
                raise
            return self.best()

    def was_replaced(self, step: int) -> bool:
        """Returns whether another has become the best, so `step` may be removed."""
        return _read_pointer(self.best_pointer) != step

    def prune(self) -> None:
        """Removes all checkpoints but the newest `keep` and the best.

        If some of the newest are damaged, more are kept, so that two are whole.
        """
        try:
            unfinished, steps = self._steps(_UNFINISHED), self._superfluous()
        except CheckpointError:
            return  # the best one, or the last whole one, is unknown: keep all
        for step in steps:
            _remove(self._path(step))
        for step in unfinished:  # left by a killed process
            _remove(self._path(step, _UNFINISHED))

    def _superfluous(self) -> list[int]:
        best = _read_pointer(self.best_pointer)
        steps = sorted(self._steps(), reverse=True)
        whole = kept = 0
        while kept < len(steps) and (kept < self.keep or whole < _KEPT_WHOLE):
            if whole < _KEPT_WHOLE and len(steps) > self.keep:
                whole += self.is_whole(steps[kept])
            kept += 1
        return [step for step in steps[kept:] if step != best]

    def _traces(self) -> str:
        """Returns evidence that there was a checkpoint; empty without any."""
        paths = [self.best_pointer, *(self.workdir / name for name in _TRACES)]
        with _readable(self.workdir):
            there = [path for path in paths if path.exists()]
        return f"none, though there is {there[0]}" if there else ""

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
        steps = {match[0]: int(match[1]) for match in matches if match}
        # A name with more zeros is not ours.
        return [s for name, s in steps.items() if name == self._path(s, prefix).name]

    def _names(self) -> list[str]:
        with _readable(self.directory), contextlib.suppress(FileNotFoundError):
            return os.listdir(self.directory)
        return []


@contextlib.contextmanager
def _readable(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where, expected = str(directory), "a readable directory"
        raise CheckpointError(where, expected, quoted(str(error))) from error


def _read_pointer(path: pathlib.Path) -> int | None:
    """Returns the step of the best checkpoint; None before the first validation."""
    expected = 'JSON with a "step"'
    try:
        pointer = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), expected, quoted(str(error))) from error
    step = pointer.get("step") if isinstance(pointer, dict) else None
    if type(step) is not int:
        raise CheckpointError(str(path), expected, f"step {quoted(step)}")
    return step


def _remove(directory: pathlib.Path):
    """Removes a directory, or as much of it as possible."""
    with contextlib.suppress(OSError):  # closing may fail despite ignore_errors
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # a file of this name
        directory.unlink()
