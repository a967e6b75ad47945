"""What the published protocol came to: as a dict, in Markdown, and on a terminal."""

import pathlib
import statistics
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from leo_tf.configs.presets import Accuracy
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.results import Calibration
from leo_tf.files import finite
from leo_tf.reports.results import flags


class TestedRun(NamedTuple):
    """One run and what it scored on its test episodes.

    Attributes:
      seed: of training and of the test episodes.
      trained_on: "train" or "train+val".
      step: of the checkpoint that was tested.
      seconds_trained: all its steps took.
      scores: of its test episodes.
    """

    seed: int
    trained_on: str
    step: int
    seconds_trained: float
    scores: EpisodeScores

    @property
    def accuracy(self) -> Interval:
        """With its 95 % interval over episodes."""
        return interval(self.scores.accuracy)

    def as_dict(self) -> dict:
        """What results.json holds of it."""
        return {
            "seed": self.seed,
            "trained_on": self.trained_on,
            "step": self.step,
            "seconds_trained": finite(self.seconds_trained),
            "accuracy": self.accuracy.as_dict(),
            **Calibration.of(self.scores).as_dict(),
        }


class Reproduction(NamedTuple):
    """All runs, and what was published.

    Attributes:
      title: what was tested, in a line.
      selection: the run that was trained on the training classes alone.
      runs: those trained on the validation classes too, one a seed.
      published: accuracies to compare with; empty if there are none.
      note: what to know when comparing; may be empty.
      given: the settings that were typed.
    """

    title: str
    selection: TestedRun
    runs: list[TestedRun]
    published: tuple[Accuracy, ...]
    note: str
    given: Mapping[str, object]
    directory: pathlib.Path

    @property
    def means(self) -> list[float]:
        """Accuracy of each run."""
        return [run.accuracy.mean for run in self.runs]

    @property
    def spread(self) -> float | None:
        """Standard deviation of the runs' accuracies; None of a single run."""
        return statistics.stdev(self.means) if len(self.runs) > 1 else None

    @property
    def over_episodes(self) -> Interval:
        """Mean over the episodes of all runs with its 95 % interval."""
        return interval(np.concatenate([run.scores.accuracy for run in self.runs]))

    def as_dict(self) -> dict:
        """What results.json holds of it."""
        return {
            "mean_over_runs": statistics.fmean(self.means),
            "standard_deviation_over_runs": self.spread,
            "half_width_95_over_all_episodes": finite(self.over_episodes.half_width),
            "published": [
                {
                    "percent": accuracy.percent,
                    "half_width": accuracy.half_width,
                    "trained_on": accuracy.protocol,
                    "source": accuracy.source,
                }
                for accuracy in self.published
            ],
            "note": self.note,
            "interval": "95 % over episodes",
            "runs": [run.as_dict() for run in self.runs],
            "selection": self.selection.as_dict(),
        }


def _run_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """Trained on, seed, step, accuracy: of every run."""
    return [
        (run.trained_on, str(run.seed), f"{run.step:,}", str(run.accuracy))
        for run in (found.selection, *found.runs)
    ]


def _summary_rows(found: Reproduction) -> list[tuple[str, str]]:
    """What each number is, and the number."""
    number, episodes = len(found.runs), sum(len(r.scores.accuracy) for r in found.runs)
    spread = "-" if found.spread is None else f"{100 * found.spread:.2f}"
    half_width = 100 * found.over_episodes.half_width
    rows = [
        (f"mean over {number} runs on train+val", f"{100 * np.mean(found.means):.2f}"),
        ("standard deviation over these runs", spread),
        (f"95 % interval over their {episodes:,} episodes", f"± {half_width:.2f}"),
    ]
    for accuracy in found.published:
        text = f"{accuracy.percent:.2f} ± {accuracy.half_width:.2f}"
        rows.append((f"published, {accuracy.protocol}: {accuracy.source}", text))
    if not found.published:
        rows.append(("published", "no number"))
    return rows


_RUN_COLUMNS = "trained on", "seed", "step", "accuracy in %"
_SUMMARY_COLUMNS = "on train+val", "accuracy in %"


def print_table(found: Reproduction) -> None:
    """Prints the runs and their summary to standard output."""
    console = Console(highlight=False)
    print(f"\n{found.title}; ± of a run is the 95 % interval over its episodes")
    parts = (_RUN_COLUMNS, _run_rows(found)), (_SUMMARY_COLUMNS, _summary_rows(found))
    for columns, rows in parts:
        table = Table(box=box.SIMPLE_HEAVY)
        for column in columns:
            table.add_column(
                column, justify="left" if column == columns[0] else "right"
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if found.note:
        print(found.note)


def as_markdown(found: Reproduction) -> str:
    """The runs, their summary, and what the intervals are of."""
    lines = [f"# {found.title}", ""]
    parts = (_RUN_COLUMNS, _run_rows(found)), (_SUMMARY_COLUMNS, _summary_rows(found))
    for columns, rows in parts:
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    lines += [
        "± of a run is the 95 % interval over its test episodes. The run trained on "
        "the training classes alone was tested at the step of its best validation; the "
        "others made as many steps. What ± means in a published number, its source "
        "does not say.",
        "",
    ]
    lines += [found.note, ""] if found.note else []
    return "\n".join([*lines, f"Given: `{flags(found.given)}`", ""])


def terminal(found):
    print_table(found)
    return []
