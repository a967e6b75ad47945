"""Messages for people beside results, and the progress line of a long job.

On a terminal the progress line moves, elsewhere it is sparse.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.table

# Seconds between lines where there is no terminal to redraw.
LINE_SECONDS = 10.0
# The first steps are slow, so no time left is shown before.
_FIRST_SECONDS = 1.0
# Width of the numbers beside the bar, which matter more than the bar.
_DETAILS_WIDTH = 76
# Wide enough for the first digits of a digest, and for a path cut by `quoted`.
_TABLE_WIDTH = 200


class _StandardError:
    """Standard error that loses only lines if a disk is full or a pipe closed."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STDERR: Any = _StandardError()  # as good as an IO[str]


class ProgressLine:
    """A context manager that shows progress, rate and time left.

    Args:
      title: name of the job.
      total: units of work in total. `done` of them are done at the start.
      unit: name of the units, in the plural.
      quiet: show nothing.
      warn: prints a line that must be seen; by default it stands above the moving one.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        unit: str = "steps",
        quiet: bool = False,
        warn: Callable[[str], None] | None = None,
    ):
        # Imported late: they take 0.05 s, which `--help` should not wait for.
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._warn = warn if quiet else None
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.done = self._first = done
        self.shown = ""  # details, rate and time left
        terminal = Terminal(file=STDERR, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(max(4, min(20, terminal.width - _DETAILS_WIDTH))),
            TaskProgressColumn(),
            TextColumn("{task.fields[details]}"),
            console=terminal,
            disable=quiet or not terminal.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "ProgressLine":
        self._start = self._last_line = time.monotonic()
        self._bar.start()
        self._task = self._bar.add_task(
            self.title, total=self.total, completed=self.done, details="starting"
        )
        return self

    def __exit__(self, *unused_error: object) -> None:
        self._bar.stop()

    def advance(self, units: int, details: str = "") -> None:
        """Counts `units` more as done. Shows `details` beside rate and time left."""
        self.done, now = self.done + units, time.monotonic()
        elapsed = max(now - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        left = (self.total - self.done) / rate if rate else 0.0
        self.shown = f"{details}  {rate:.1f} {self.unit}/s".strip()
        if elapsed >= _FIRST_SECONDS:
            self.shown += f"  {clock(left)} left"
        self._bar.update(self._task, completed=self.done, details=self.shown)
        is_plain = self._bar.disable and not self.quiet
        if is_plain and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            print(self, file=STDERR)

    def __str__(self) -> str:
        return f"{self.title} {self.done}/{self.total}  {self.shown}"

    def skip_time(self, seconds: float) -> None:
        """Excludes `seconds` spent on something else from the rate."""
        self._start += seconds

    def note(self, text: str) -> None:
        """Prints a permanent line above the moving one."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints a permanent line, even if quiet."""
        if self._warn:
            return self._warn(text)
        self._bar.console.print(text, markup=False, soft_wrap=True)


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"


class Console:
    """Messages of a job, on standard error, beside results.

    If it is `quiet`, only warnings are left.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Prints a line, unless quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints a line, even if quiet."""
        print(text, file=STDERR)

    def table(self, table: "rich.table.Table") -> None:
        """Prints a table, even if quiet."""
        from rich.console import Console as Terminal

        terminal = Terminal(file=STDERR, highlight=False, markup=False)
        if not terminal.is_terminal:
            terminal.width = _TABLE_WIDTH
        terminal.print(table)

    def progress(
        self, title: str, total: int, done: int = 0, unit: str = "steps"
    ) -> ProgressLine:
        """Returns the progress line of a job. It is hidden if quiet."""
        return ProgressLine(title, total, done, unit, self.quiet, self.warn)


class _Silent(Console):
    """Console of a library call: prints nothing, and logs warnings."""

    def warn(self, text: str) -> None:
        logging.getLogger("leo_tf").warning(text)

    def table(self, table: "rich.table.Table") -> None:
        """Shows nothing, because the error that follows has the same content."""


SILENT: Console = _Silent(quiet=True)
