"""The results of a run: as a dict for results.json, and as a table for people."""

import shlex
from collections.abc import Mapping
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from leo_tf.evaluation.calibration import Bins, expected_calibration_error
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.files import finite
from leo_tf.methods.registry import method_named

# What every method is tested beside.
BASELINE = "centroid"


class Calibration(NamedTuple):
    """Whether a method is as sure as it is right.

    Attributes:
      nll: negative log-likelihood of a query in nats, with its 95 % interval over
        episodes.
      ece: expected calibration error over all queries, between 0 and 1.
      bins: what it is made of.
    """

    nll: Interval
    ece: float
    bins: Bins

    @classmethod
    def of(cls, scores: EpisodeScores) -> "Calibration":
        """Sums up scores with `nll` and `bins`."""
        bins = Bins(*(tuple(map(float, sums)) for sums in scores.bins))
        return cls(interval(scores.nll), expected_calibration_error(bins), bins)

    def as_dict(self) -> dict:
        """What results.json holds; of the bins, sums over queries (`Bins`)."""
        bins = {
            name: list(map(finite, sums)) for name, sums in zip(Bins._fields, self.bins)
        }
        return {"nll": as_dict(self.nll), "ece": finite(self.ece), "bins": bins}


class Results(NamedTuple):
    """Test accuracy of a method and of nearest centroid, on the same episodes.

    Attributes:
      methods: name -> accuracy with its 95 % interval over episodes; the method that
        was asked for comes first.
      losses: name -> mean loss.
      difference: the method minus nearest centroid, paired by episode, likewise; None
        if the method is nearest centroid.
      episodes: how many.
      calibration: of the method that was asked for; that of the bare cosines beside it
        says nothing.
    """

    methods: dict[str, Interval]
    losses: dict[str, float]
    difference: Interval | None
    episodes: int
    calibration: Calibration

    @property
    def method(self) -> str:
        """The name of the method that was asked for."""
        return next(iter(self.methods))


def results_of(scores: dict[str, EpisodeScores]) -> Results:
    """Sums up what a method, the first, and nearest centroid scored."""
    accuracies = {name: score.accuracy for name, score in scores.items()}
    first, *others = accuracies.values()
    return Results(
        methods={name: interval(values) for name, values in accuracies.items()},
        losses={name: score.loss for name, score in scores.items()},
        difference=interval(first - others[0]) if others else None,
        episodes=len(first),
        calibration=Calibration.of(next(iter(scores.values()))),
    )


def as_json(results: Results, **facts) -> dict:
    """What results.json holds: numbers with intervals, then whatever `facts` say."""
    methods = {
        name: {**as_dict(accuracy), "loss": finite(results.losses[name])}
        for name, accuracy in results.methods.items()
    }
    methods[results.method].update(results.calibration.as_dict())
    difference = {}
    if results.difference is not None:
        name = f"{results.method}_minus_{BASELINE}"
        difference = {name: as_dict(results.difference)}
    return {
        "accuracy": methods,
        **difference,
        "episodes": results.episodes,
        "interval": "95 % over episodes",
        **facts,
    }


def title(
    dataset: str, shape: Mapping[str, int], samples: int, step: int | None = None
) -> str:
    """What was tested, in a line.

    Args:
      dataset: its name.
      shape: way, shot and num_query of the episodes.
      samples: draws that predictions were averaged over, or 0.
      step: of the checkpoint.
    """
    parts = [
        f"{dataset}, test: {shape['way']}-way {shape['shot']}-shot",
        f"{shape['num_query']} queries a class",
    ]
    if step is not None:
        parts.append(f"step {step}")
    if samples:
        parts.append(f"mean of {samples} draws")
    return ", ".join(parts)


def flags(settings: Mapping[str, object]) -> str:
    """Settings as they are typed."""

    def typed(value):
        return str(value).lower() if isinstance(value, bool) else str(value)

    return " ".join(
        shlex.quote(f"--{name}={typed(value)}") for name, value in settings.items()
    )


def print_table(results: Results, title: str) -> None:
    """Prints accuracies and their paired difference to standard output."""
    table = Table(box=box.SIMPLE_HEAVY)
    table.add_column("method")
    for column in ("accuracy in %", "NLL", "ECE in %"):
        table.add_column(column, justify="right")
    for name, accuracy in results.methods.items():
        title_of_row = method_named(name).title
        if name != results.method:  # beside, not asked for
            title_of_row = title_of_row[0].lower() + title_of_row[1:]
            surety = "", ""
        else:
            nll, ece, _ = results.calibration
            surety = nats(nll.mean), f"{100 * ece:.1f}"
        table.add_row(title_of_row, str(accuracy), *surety)
    if results.difference is not None:
        table.add_section()
        table.add_row(
            "difference, paired",
            f"{100 * results.difference.mean:+.2f} ± "
            f"{100 * results.difference.half_width:.2f}",
        )
    print(f"\n{title}; ± is the 95 % interval over {results.episodes} episodes")
    Console(highlight=False).print(table)


def nats(nll: float) -> str:
    """A negative log-likelihood, however large it is."""
    return f"{nll:.2g}" if nll >= 1000 else f"{nll:.3f}"


def as_dict(value: Interval) -> dict[str, float]:
    """A mean and its half width; None where it is not finite, as JSON has no NaN."""
    return {"mean": finite(value.mean), "half_width_95": finite(value.half_width)}
