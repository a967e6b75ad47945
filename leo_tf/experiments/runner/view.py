"""Shows many runs on the terminal: a line for each running one, and a total."""

import time
from collections.abc import Sequence
from typing import Any

from leo_tf.console import LINE_SECONDS, STDERR, Console, clock
from leo_tf.errors import Stopped
from leo_tf.experiments.runner.tasks import Sign, Task

# A run without a sign of life for this many seconds is reported.
_SILENT_SECONDS = 60.0
_DETAILS_WIDTH = 60


class View:
    """A context manager that shows signs of tasks and the estimated time left.

    Without a terminal to redraw, it prints a line from time to time. `later` is the
    work of runs that follow these, in steps times their costs; the total includes it.
    """

    def __init__(self, tasks: Sequence[Task], console: Console, later: float = 0.0):
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        self._tasks = {task.name: task for task in tasks}
        self._console = console
        self._steps = {task.name: task.begun for task in tasks}  # known to be done
        self._first: dict[str, int] = {}  # steps when this view began
        self._later = later
        self._rows: dict[str, Any] = {}
        self._seen: dict[str, float] = {}
        self._texts: dict[str, str] = {}
        self._ended: set[str] = set()
        terminal = Terminal(file=STDERR, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(max(4, min(20, terminal.width - _DETAILS_WIDTH))),
            TextColumn("{task.fields[details]}", markup=False),
            console=terminal,
            disable=console.quiet or not terminal.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "View":
        self._start = self._line = time.monotonic()
        self._bars.start()
        costs = [task.steps * task.step_cost for task in self._tasks.values()]
        total = sum(costs) + self._later
        self._total = self._bars.add_task("all runs", total=total, details="starting")
        return self

    def __exit__(self, *unused_error: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a permanent line, unless quiet."""
        if self._console.quiet:
            return
        self._bars.console.print(text, markup=False, soft_wrap=True)

    def show(self, sign: Sign | None) -> None:
        """Shows a sign, or that there was none for some time."""
        if sign is not None:
            self._note(sign)
        self._redraw()

    def _note(self, sign: Sign) -> None:
        name = sign.name
        self._seen[name] = time.monotonic()
        if sign.step is not None and sign.total == self._tasks[name].steps:
            # A run that is restarted repeats steps, which do not count again.
            self._steps[name] = max(sign.step, self._steps[name])
            self._first.setdefault(name, self._steps[name])
        self._texts[name] = sign.text or self._texts.get(name, "")
        if sign.is_warning:
            say = self._console.warn if self._console.quiet else self.say
            say(f"{name}: {sign.text}")
        if sign.has_ended:
            self._ended.add(name)
            row, outcome = self._rows.pop(name, None), sign.outcome
            if row is not None:
                self._bars.remove_task(row)
            if not isinstance(outcome, Stopped | None):
                self.say(f"{name}: {outcome}")
            elif outcome is not None and row is not None:
                self.say(f"{name}: stopped and saved")
        elif name not in self._rows:
            task = self._tasks[name]
            self._rows[name] = self._bars.add_task(name, total=task.steps, details="")
            if task.said:
                self.say(task.said)

    def _redraw(self) -> None:
        now = time.monotonic()
        for name, row in self._rows.items():
            details = self._silence(name, now) or self._texts[name]
            self._bars.update(row, completed=self._steps[name], details=details)
        done = sum(
            (task.steps if name in self._ended else self._steps[name]) * task.step_cost
            for name, task in self._tasks.items()
        )
        details = self._details(now)
        self._bars.update(self._total, completed=done, details=details)
        is_plain = self._bars.disable and not self._console.quiet
        if is_plain and now - self._line >= LINE_SECONDS:
            self._line = now
            places = (f"; {name} {self._place(name, now)}" for name in self._rows)
            print(f"{details}{''.join(places)}", file=STDERR)

    def _place(self, name: str, now: float) -> str:
        steps, silence = self._tasks[name].steps, self._silence(name, now)
        place = [f"{self._steps[name]}/{steps}"] if steps else []
        if self._steps[name] in (0, steps):  # before or after training, or without
            place.append(self._texts[name].rstrip("."))
        if silence:
            place.append(f"({silence})")
        return " ".join(place)

    def _silence(self, name: str, now: float) -> str:
        silent = now - self._seen[name]
        return f"no progress for {clock(silent)}" if silent > _SILENT_SECONDS else ""

    def _details(self, now: float) -> str:
        details = f"{len(self._ended)} of {len(self._tasks)} runs done"
        made = sum(
            (self._steps[name] - first) * self._tasks[name].step_cost
            for name, first in self._first.items()
        )
        left = self._later + sum(
            (task.steps - self._steps[name]) * task.step_cost
            for name, task in self._tasks.items()
            if name not in self._ended
        )
        if not (made and left):
            return details
        of_all = " with later rungs" if self._later else ""
        return f"{details}, {clock(left * (now - self._start) / made)} left{of_all}"
