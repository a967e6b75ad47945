"""Hooks into a training: trackers, early stopping, notifications, a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from leo_tf.errors import CallbackError, DiskError, FlagError, quoted
from leo_tf.files import write_file
from leo_tf.runs.run import Run

_HISTORY = "history.csv"


class Callback:
    """Base class of callbacks. Override the methods that are of use.

    An exception in a callback ends the run with a `CallbackError` that names it. The
    last checkpoint stays, and the run can be resumed from it. With several workers,
    only the chief calls callbacks.
    """

    def on_start(self, run: Run) -> None:
        """Called when the run begins, or resumes at `run.state.step`.

        `path`, `config` and `learner` are set, `results` is not.
        """

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called every `log_every` steps, with the means since the last call.

        Keys are TensorBoard's tags, such as "accuracy_and_loss/loss".
        """

    def on_validation(
        self, step: int, metrics: Mapping[str, float | None]
    ) -> bool | None:
        """Called after each validation, once its checkpoint is saved.

        Args:
          step: meta-steps done.
          metrics: the new row of `run.history`: "val_accuracy", "val_half_width",
            "val_loss", "train_accuracy", "train_loss"; None if non-finite.

        Returns:
          True to end training here. The best checkpoint is tested as usual.
        """

    def on_end(self, run: Run) -> None:
        """Called after training and test, or when a signal stopped training.

        `results` is set unless `run.stopped_by` is a signal.
        """


class HistoryFile(Callback):
    """Writes `run.history` to a file after each validation. Failures only warn."""

    def on_start(self, run: Run) -> None:
        self._run = run

    def on_validation(self, step: int, metrics: Mapping[str, float | None]) -> None:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, ["step", *(n for n in metrics if n != "step")])
        writer.writeheader()
        writer.writerows(self._run.history)
        try:
            write_file(self._run.path / _HISTORY, lines.getvalue().encode())
        except DiskError as error:
            self._run.console.warn(f"{_HISTORY} not written: {error}")


def check_callbacks(callbacks: object) -> None:
    """Raises a FlagError unless `callbacks` is a list of `Callback`s."""
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    for each in given:
        if not isinstance(each, Callback) or given is not callbacks:
            name = each.__name__ if isinstance(each, type) else type(each).__name__
            received = f"the class {name}" if isinstance(each, type) else f"a {name}"
            expected = "a list of instances of subclasses of leo_tf.Callback"
            raise FlagError("`callbacks`", expected, received)


def call_all(callbacks: Sequence[Callback], hook: str, *arguments: Any) -> bool:
    """Calls a hook of every callback. Returns whether any returned True.

    Raises:
      CallbackError: naming the first callback that raised an exception.
    """
    answers = []
    for callback in callbacks:
        try:
            answers.append(getattr(callback, hook)(*arguments) is True)
        except Exception as error:  # whatever it is, the error names the callback
            where = f"callback {type(callback).__name__}.{hook}"
            received = quoted(f"{type(error).__name__}: {error}")
            hint = "The last checkpoint stays; the run can be resumed from it."
            raise CallbackError(where, "no exception", received, hint) from error
    return any(answers)
