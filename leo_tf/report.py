"""The results of a run: as a dict for results.json, and as a table for people."""

import importlib.metadata
import platform
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import leo_tf
from leo_tf.evaluation import EpisodeScores, Interval, interval

LEO_NAME, CENTROID_NAME = "leo", "centroid"
_TITLES = {LEO_NAME: "LEO", CENTROID_NAME: "nearest centroid"}


class Results(NamedTuple):
    """Test accuracy of every method on the same episodes.

    Attributes:
      methods: name -> accuracy with its 95 % interval over episodes.
      losses: name -> mean loss.
      difference: LEO minus nearest centroid, paired by episode, likewise.
      episodes: how many.
    """

    methods: dict[str, Interval]
    losses: dict[str, float]
    difference: Interval
    episodes: int


def results_of(scores: dict[str, EpisodeScores]) -> Results:
    """Sums up what the methods scored on the same episodes."""
    leo, centroid = scores[LEO_NAME].accuracy, scores[CENTROID_NAME].accuracy
    return Results(
        methods={name: interval(score.accuracy) for name, score in scores.items()},
        losses={name: score.loss for name, score in scores.items()},
        difference=interval(leo - centroid),
        episodes=len(leo),
    )


def as_json(results: Results, **facts) -> dict:
    """What results.json holds: numbers with intervals, then whatever `facts` say."""
    methods = {
        name: {**_as_dict(accuracy), "loss": _finite(results.losses[name])}
        for name, accuracy in results.methods.items()
    }
    return {
        "accuracy": methods,
        "leo_minus_centroid": _as_dict(results.difference),
        "episodes": results.episodes,
        "interval": "95 % over episodes",
        **facts,
    }


def print_table(results: Results, title: str) -> None:
    """Prints accuracies and their paired difference to standard output."""
    table = Table(box=box.SIMPLE_HEAVY)
    table.add_column("method")
    table.add_column("accuracy in %", justify="right")
    for name, accuracy in results.methods.items():
        table.add_row(_TITLES[name], str(accuracy))
    table.add_section()
    table.add_row(
        "difference, paired",
        f"{100 * results.difference.mean:+.2f} ± "
        f"{100 * results.difference.half_width:.2f}",
    )
    print(f"\n{title}; ± is the 95 % interval over {results.episodes} episodes")
    Console(highlight=False).print(table)


def versions() -> dict[str, str]:
    """What computed a result: packages, Python and machine."""
    packages = ("tensorflow", "tensorflow-probability", "keras", "numpy", "matplotlib")
    found = {name: importlib.metadata.version(name) for name in packages}
    found = {"leo-tf": leo_tf.__version__, **found}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def _as_dict(value: Interval) -> dict[str, float]:
    return {"mean": value.mean, "half_width_95": _finite(value.half_width)}


def _finite(number: float) -> float | None:
    """The number, or None: JSON has neither infinity nor NaN."""
    return number if np.isfinite(number) else None
