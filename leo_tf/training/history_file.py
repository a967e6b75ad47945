"""history.csv of a run directory: a line a validation, for spreadsheets and plots."""

import csv
import io
from collections.abc import Mapping

from leo_tf.errors import DiskError
from leo_tf.files import write_file
from leo_tf.runs.run import Run
from leo_tf.training.callback import Callback

NAME = "history.csv"


class HistoryFile(Callback):
    """Writes `run.history` anew after each validation; a failure costs no training."""

    def on_start(self, run: Run) -> None:
        self._run = run

    def on_validation(self, step: int, metrics: Mapping[str, float | None]) -> None:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, ["step", *(n for n in metrics if n != "step")])
        writer.writeheader()
        writer.writerows(self._run.history)
        try:
            write_file(self._run.path / NAME, lines.getvalue().encode())
        except DiskError as error:
            self._run.console.warn(f"no {NAME} this time: {error}")
