"""A run directory: one configuration, one writer, results in separate files.

config.json         the configuration
checkpoints/        step-NNNNNNNN, see `checkpoints.py`
best/               name of the checkpoint that validated best
ensemble.json       its mix with a closed form, if configured
confidence.json     its calibration, see `evaluation/confidence.py`
transform.npz       its feature transform, if it has one
data/               arrays it was given from Python
history.csv         numbers of the learning curve
events/             for TensorBoard
results.json        test accuracy, written at the end
learning_curve.png, episode.png
.lock               held by the process that writes
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
    quoted,
)
from leo_tf.files import AnyPath, make_directory, read_json, to_json, write_file

_LOCK = ".lock"
# Hint of errors about other flags or other data.
HINT = "Give the same {} to resume it, or another --workdir, or --allow_changes."
_OF_ONE_RUN = "a directory for one run"
# Marks a directory as the parent of several runs.
JOB_FILE = "job.json"

# Settings that may change when a run resumes: they decide how many steps there are,
# but change none.
_CHANGEABLE = (
    *("data_path", "keep_checkpoints", "log_every", "non_finite_limit", "num_steps"),
    *("num_test_episodes", "patience", "preset", "test_samples"),
)


class RunDirectory:
    """A run directory. Writing needs `for_training`, reading does not."""

    def __init__(self, path: AnyPath):
        if not isinstance(path, str | os.PathLike):
            hint = "A run has it as `run.path`." if hasattr(path, "path") else ""
            raise FlagError("`workdir`", "a path", type(path).__name__, hint)
        rules.path().checked(os.fspath(path), "workdir")
        try:  # absolute, because a callback may change the current directory
            self.path = pathlib.Path(path).absolute()
        except FileNotFoundError:
            received = "a current directory that was removed"
            raise InputError(str(path), "a path from here", received) from None

    @contextlib.contextmanager
    def for_training(
        self, config: Config, allow_changes: bool = False, console: Console = SILENT
    ) -> Iterator["RunDirectory"]:
        """Locks the directory; creates it, or checks that it belongs to this run.

        Nothing is written yet. `write_config` follows once the run is sure to begin.

        Raises:
          InputError: if another process trains here, or the configuration differs and
            `allow_changes` is False. The differences are named and shown as a table.
          DiskError: if it cannot be written.
        """
        with self.held():
            self._check(config, allow_changes, console)
            yield self

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Locks the directory for this process; creates it if it is missing.

        If this call created it and nothing was written, it is removed on exit.

        Raises:
          InputError: if another process holds it.
          DiskError: if it cannot be written.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8
            expected = "a path in UTF-8, as TensorFlow writes it"
            raise InputError(quoted(str(self.path)), expected, "other bytes") from None
        is_new = not os.path.lexists(self.path)
        with contextlib.ExitStack() as held:
            try:
                make_directory(self.path)
                lock, place = self._open_lock(held)
            except (FileExistsError, NotADirectoryError):
                expected = "a directory, or none yet"
                raise InputError(str(self.path), expected, "a file") from None
            except OSError as error:
                raise DiskError(str(self.path), "to write here", str(error)) from error
            self._lock(lock, place)
            try:
                yield
            finally:
                if is_new:
                    self._remove_if_unused()

    def config(self) -> Config:
        """Returns the configuration of the run.

        Raises:
          InputError: if there is no run here, or config.json is damaged.
        """
        path = self.path / "config.json"
        try:
            values = read_json(path)
        except FileNotFoundError:
            job, expected = job_of(self.path), "a run directory with a config.json"
            received = f"that of --mode={job}" if job else "none"
            hint = "Its runs are in directories below it." if job else ""
            raise InputError(str(self.path), expected, received, hint) from None
        except (OSError, ValueError) as error:
            raise InputError(str(path), "JSON", quoted(str(error))) from error
        return Config.from_dict(values, source=str(path))

    def begun_config(self) -> Config | None:
        """Returns the configuration of the run; None before its first checkpoint."""
        return self.config() if self._found("checkpoints", "best") else None

    def write_config(self, config: Config) -> None:
        """Writes config.json. Call it before saving the first checkpoint."""
        self.write_json("config.json", config.to_dict())

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` as JSON, atomically."""
        write_file(self.path / name, to_json(value))

    def _open_lock(self, held: contextlib.ExitStack) -> tuple[int, int]:
        """Returns descriptors of lock file and directory, which `held` closes."""
        path = self.path / _LOCK
        # It is overwritten later, so it must not be a link or a device.
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
        # The system frees both locks when the process ends, however it ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock).st_nlink:  # removed by its holder meanwhile
                raise BlockingIOError
            _lock_directory(place)
            os.ftruncate(lock, 0)
            holder = f"process {os.getpid()} on {socket.gethostname()}\n"
            os.write(lock, holder.encode())
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            expected = "no other process training here"
            received = quoted(holder or "another process")
            raise HeldError(str(self.path), expected, received) from None
        except OSError as error:  # a network file system may have no locks
            raise DiskError(str(self.path), "to lock it", str(error)) from error

    def _remove_if_unused(self):
        # Only the holder of the lock may do this.
        with contextlib.suppress(OSError):
            if os.listdir(self.path) == [_LOCK]:
                (self.path / _LOCK).unlink()
                self.path.rmdir()

    def _found(self, *names: str) -> list[str]:
        try:
            return [name for name in names if (self.path / name).exists()]
        except OSError as error:
            expected = "a directory that can be read"
            raise InputError(str(self.path), expected, quoted(str(error))) from error

    def _check(self, config: Config, allow_changes: bool, console: Console) -> None:
        found = self._found("checkpoints", "best", "results.json", JOB_FILE)
        if not found:
            # A start that failed leaves nothing to mix up. A config.json of another
            # program is refused.
            if self._found("config.json"):
                self.config()
            return
        if not self._found("config.json"):
            if JOB_FILE in found:
                received = f"that of --mode={job_of(self.path)}"
                hint = "Give another --workdir: this one has other results."
                raise InputError(str(self.path), _OF_ONE_RUN, received, hint)
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
    """Returns the mode of the job that has its runs in `path`; None without one."""
    file = path / JOB_FILE
    try:
        mode = read_json(file)["mode"]
        if not isinstance(mode, str):
            raise TypeError("`mode` is not text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        expected = "a JSON object with a `mode`"
        raise InputError(str(file), expected, quoted(str(error))) from error
    return mode


def check_job(path: pathlib.Path, mode: str) -> str | None:
    """Returns `job_of(path)`. Raises an InputError if `path` has other results."""
    found, is_run = job_of(path), (path / "config.json").exists()
    if is_run or found not in (None, mode):
        received = "that of one run" if is_run else f"that of --mode={found}"
        hint = "Give another --workdir: this one has other results."
        raise InputError(str(path), f"a directory for --mode={mode}", received, hint)
    return found


def _lock_directory(descriptor: int) -> None:
    """Locks the directory itself, because its lock file may be removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another process holds it
        raise
    except OSError:  # a network file system may lock only files, which is enough
        pass


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # closed even if this fails
        os.close(descriptor)


class Change(NamedTuple):
    """A field with its value in the run and its value now."""

    field: str
    before: object
    now: object

    def __str__(self) -> str:
        return (
            f"{self.field} is {quoted(self.before)} there and {quoted(self.now)} here"
        )


def check_changes(
    changes: Sequence[Change],
    allowed: bool,
    refusal: LeoError,
    console: Console = SILENT,
) -> None:
    """Shows changes as a table, and raises `refusal` unless they are allowed."""
    if not changes:
        return
    table = Table(box=box.SIMPLE)
    for title in ("field", "the run's", "now"):
        table.add_column(title, overflow="fold")
    for change in changes:
        table.add_row(change.field, quoted(change.before), quoted(change.now))
    console.table(table)
    if not allowed:
        raise refusal
