"""A run directory: one configuration, one writer, results in files of its own.

config.json         what runs here
checkpoints/        step-NNNNNNNN, see `checkpoints.py`
best/               which of them validated best
ensemble.json       how it is mixed with a closed form, if it is
confidence.json     how sure its answers may be, see `evaluation/confidence.py`
events/             for TensorBoard
results.json        test accuracy, written at the end
learning_curve.png, episode.png
"""

import contextlib
import fcntl
import os
import pathlib
import socket
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from leo_tf.configs import rules
from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.errors import (
    DiskError,
    FlagError,
    HeldError,
    InputError,
    LeoError,
    shown,
)
from leo_tf.files import AnyPath, make_directory, read_json, to_json, write_file

# Thousands of times what a configuration takes.
_MOST_CONFIG_BYTES = 2**20
_LOCK = ".lock"
# Of a refusal of other flags, or of other data.
HINT = "Give the same {} to go on with it, or another --workdir, or --allow_changes."
# What several runs belong to: a file above their directories.
JOB_FILE = "job.json"

# What may change between two starts of the same run: it changes no number of it.
_CHANGEABLE = (
    *("data_path", "keep_checkpoints", "log_every", "non_finite_limit", "num_steps"),
    *("num_test_episodes", "patience", "preset", "test_samples"),
)


class RunDirectory:
    """A run directory; reading needs nothing, writing goes through `for_training`."""

    def __init__(self, path: AnyPath):
        if not isinstance(path, str | os.PathLike):
            hint = "A run has it as `run.path`." if hasattr(path, "path") else ""
            raise FlagError("`workdir`", "a path", type(path).__name__, hint)
        rules.path().checked(os.fspath(path), "workdir")
        try:  # a callback may change the current directory
            self.path = pathlib.Path(path).absolute()
        except FileNotFoundError:
            received = "a current directory that was removed"
            raise InputError(str(path), "a path from here", received) from None

    @contextlib.contextmanager
    def for_training(
        self, config: Config, allow_changes: bool = False, console: Console = SILENT
    ) -> Iterator["RunDirectory"]:
        """Holds the directory for this process; makes it, or checks it is this run's.

        Nothing is written yet: `write_config` is for when the run is sure to begin.

        Raises:
          InputError: if another process trains here, or, unless `allow_changes`, with
            another configuration: what differs is named, and shown as a table.
          DiskError: if it cannot be written.
        """
        with self.held():
            self._check(config, allow_changes, console)
            yield self

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the directory for this process; makes it if it is not there.

        If it was made here and nothing was written in it, it goes again.

        Raises:
          InputError: if another process holds it.
          DiskError: if it cannot be written.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # bytes that are no characters
            expected = "a path in UTF-8, as TensorFlow writes it"
            raise InputError(shown(str(self.path)), expected, "other bytes") from None
        is_new = not os.path.lexists(self.path)
        with contextlib.ExitStack() as held:
            try:
                make_directory(self.path)
                lock, place = self._open_lock(held)
            except OSError as error:
                raise DiskError(str(self.path), "to write here", str(error)) from error
            self._lock(lock, place)
            try:
                yield
            finally:
                if is_new:
                    self._remove_if_unused()

    def config(self) -> Config:
        """The configuration of the run.

        Raises:
          InputError: if there is no run here, or config.json is damaged.
        """
        path = self.path / "config.json"
        try:
            values = read_json(path, _MOST_CONFIG_BYTES)
        except FileNotFoundError:
            job, expected = job_of(self.path), "a run directory with a config.json"
            received = f"that of --mode={job}" if job else "none"
            hint = "Its runs are in directories below it." if job else ""
            raise InputError(str(self.path), expected, received, hint) from None
        except (OSError, ValueError) as error:
            raise InputError(str(path), "JSON", shown(str(error))) from error
        return Config.from_dict(values, source=str(path))

    def begun_config(self) -> Config | None:
        """The configuration of the run if it has come as far as a checkpoint."""
        return self.config() if self._found("checkpoints", "best") else None

    def write_config(self, config: Config) -> None:
        """Says what runs here; before the first checkpoint is saved."""
        self.write_json("config.json", config.to_dict())

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` as JSON, whole or not at all."""
        write_file(self.path / name, to_json(value))

    def _open_lock(self, held: contextlib.ExitStack) -> tuple[int, int]:
        """Descriptors of the lock file and of the directory, which `held` closes."""
        path = self.path / _LOCK
        # It is going to be overwritten: no file elsewhere, and no device.
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                expected = "a regular file of one name"
                raise InputError(str(path), expected, "a link or a device")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        held.callback(_close, lock)
        place = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        held.callback(_close, place)
        return lock, place

    def _lock(self, lock: int, place: int):
        # The system frees both when the process ends, however it ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock).st_nlink:  # gone with whoever made it
                raise BlockingIOError
            _lock_directory(place)
            os.ftruncate(lock, 0)
            holder = f"process {os.getpid()} on {socket.gethostname()}\n"
            os.write(lock, holder.encode())
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            expected = "no other process training here"
            received = shown(holder or "another process")
            raise HeldError(str(self.path), expected, received) from None
        except OSError as error:  # a network file system may know no locks
            raise DiskError(str(self.path), "to lock it", str(error)) from error

    def _remove_if_unused(self):
        # Only by who holds the lock: else it would be another process's.
        with contextlib.suppress(OSError):
            if os.listdir(self.path) == [_LOCK]:
                (self.path / _LOCK).unlink()
                self.path.rmdir()

    def _found(self, *names: str) -> list[str]:
        try:
            return [name for name in names if (self.path / name).exists()]
        except OSError as error:
            expected = "a directory that can be read"
            raise InputError(str(self.path), expected, shown(str(error))) from error

    def _check(self, config: Config, allow_changes: bool, console: Console) -> None:
        found = self._found("checkpoints", "best", "results.json", JOB_FILE)
        if not found:
            # An earlier start may have failed, then there is nothing to mix up; but
            # a config.json that is no run's is somebody else's, and refused.
            if self._found("config.json"):
                self.config()
            return
        if not self._found("config.json"):
            if JOB_FILE in found:
                self.config()  # says whose directory it is
            received = f"{', '.join(found)} without config.json"
            raise InputError(str(self.path), "a whole run directory", received)
        changes = [
            Change(field, theirs, mine)
            for field, mine, theirs in config.differences(self.config())
            if field not in _CHANGEABLE
        ]
        expected = "a run of the same configuration"
        other = "; ".join(map(str, changes))
        refusal = InputError(
            str(self.path), expected, f"another: {other}", HINT.format("flags")
        )
        check_changes(changes, allow_changes, refusal, console)


def job_of(path: pathlib.Path) -> str | None:
    """The mode whose several runs lie below a directory, if there are any."""
    file = path / JOB_FILE
    try:
        mode = read_json(file, _MOST_CONFIG_BYTES)["mode"]
        if not isinstance(mode, str):
            raise TypeError("`mode` is no text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        expected = "a JSON object with a `mode`"
        raise InputError(str(file), expected, shown(str(error))) from error
    return mode


def _lock_directory(descriptor: int) -> None:
    """Locks the directory itself: its lock file may be removed while it is held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another process holds it
        raise
    except OSError:  # a network file system may lock files only: that must do
        pass


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # it is free even so
        os.close(descriptor)


class Change(NamedTuple):
    """A field, its value in the run, and now."""

    field: str
    before: object
    now: object

    def __str__(self) -> str:
        return f"{self.field} is {shown(self.before)} there and {shown(self.now)} here"


def check_changes(
    changes: Sequence[Change],
    allowed: bool,
    refusal: LeoError,
    console: Console = SILENT,
) -> None:
    """Shows what differs, if anything, as a table; raises `refusal` unless allowed."""
    if not changes:
        return
    table = Table(box=box.SIMPLE)
    for title in ("field", "the run's", "now"):
        table.add_column(title, overflow="fold")
    for change in changes:
        table.add_row(change.field, shown(change.before), shown(change.now))
    console.table(table)
    if not allowed:
        raise refusal
