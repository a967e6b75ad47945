"""Numeric results of jobs of several runs: comparison, reproduction, search."""

import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from leo_tf.configs.presets import Accuracy
from leo_tf.evaluation.confidence import OpenSet
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.results import Calibration, remark
from leo_tf.files import near
from leo_tf.methods.variants import variant_named


class Row(NamedTuple):
    """One method of a comparison."""

    name: str  # METHOD or METHOD@TRANSFORM
    accuracy: Interval  # 95 % over episodes
    difference: Interval | None  # to the reference, paired by episode; None for itself
    calibration: Calibration
    parameters: int  # number of trained numbers
    best_step: int  # step of the tested checkpoint
    steps: int  # steps trained, up to the last checkpoint
    diverged: bool  # training ended with non-finite steps
    seconds_trained: float
    seconds_to_adapt: float  # median over tasks, one at a time
    chosen: dict[str, float]  # settings tuned on validation episodes, by name
    settings: dict[str, object]  # settings of this method alone, by name
    share_not_finite: float = 0.0  # share of training steps
    validation: Interval | None = None  # validation accuracy of that checkpoint
    open_set: OpenSet | None = None  # if requested
    transform: str = "none"  # transform of its features
    shared: bool = True  # all rows share that transform
    ensemble: str = "none"  # closed form of its ensemble
    is_exportable: bool = True

    @property
    def plain_title(self) -> str:
        """Name, and the transform if it differs from the shared one."""
        variant = variant_named(self.name)
        other = self.ensemble
        title = variant.title if other == "none" else f"{variant.title} + {other}"
        own = variant.transform or variant.entry.feature_transform
        if self.shared or own or self.transform == "none":
            return title
        return f"{title}, {self.transform}"

    @property
    def words(self) -> str:
        """Method and transform, for a sentence."""
        method = variant_named(self.name).entry
        other = "" if self.ensemble == "none" else f" + {self.ensemble}"
        if method.feature_transform:
            return method.title
        features = "untransformed features"
        if self.transform != "none":
            features = f"{self.transform} features"
        return f"{method.title}{other} on {features}"

    @property
    def title(self) -> str:
        """Name in tables, with a remark if many steps were non-finite."""
        return self.plain_title + remark(self.share_not_finite)

    @property
    def is_transductive(self) -> bool:
        """True if the method also learns from an episode's queries."""
        return variant_named(self.name).entry.transductive

    def as_dict(self) -> dict:
        """Returns the entry in results.json."""
        return {
            "title": self.plain_title,
            "transductive": self.is_transductive,
            "feature_transform": self.transform,
            "accuracy": self.accuracy.as_dict(),
            "validation": self.validation and self.validation.as_dict(),
            "difference": self.difference and self.difference.as_dict(),
            **self.calibration.as_dict(),
            **({"open_set": self.open_set.as_dict()} if self.open_set else {}),
            "trainable_parameters": self.parameters,
            "best_step": self.best_step,
            "steps_trained": self.steps,
            "share_not_finite": self.share_not_finite,
            "diverged": self.diverged,
            "seconds_trained": self.seconds_trained,
            "seconds_to_adapt_to_a_task": self.seconds_to_adapt,
            "chosen_on_validation": self.chosen,
            "settings_of_its_own": self.settings,
        }


class Comparison(NamedTuple):
    """Methods on the same test episodes."""

    rows: list[Row]  # variants of a method side by side, in the order of `METHODS`
    reference: str  # name of the row that differences are relative to
    dataset: str
    shape: Mapping[str, object]  # of the episodes: see `dataset.evaluation_shape`
    episodes: int  # number of episodes
    samples: int  # draws to average predictions over, or 0
    given: Mapping[str, object]  # settings that the user typed
    selects: bool  # checkpoints were selected by validation accuracy
    directory: pathlib.Path
    lead: Interval | None = None  # lead of `best`, paired by validation episode

    def __repr__(self) -> str:
        head = f"Comparison in {near(self.directory)}, {self.episodes} test episodes"
        best = {self.best.name: ", best on validation"} if self.best else {}
        lines = [
            f"  {row.name}: {row.accuracy} %{best.get(row.name, '')}"
            for row in self.rows
        ]
        return "\n".join([f"{head}:", *lines])

    @property
    def reference_title(self) -> str:
        """Name of the reference in tables."""
        return {row.name: row.plain_title for row in self.rows}[self.reference]

    @property
    def inductive(self) -> list[Row]:
        """Rows of methods that score each query alone."""
        return [row for row in self.rows if not row.is_transductive]

    @property
    def transductive(self) -> list[Row]:
        """Rows of methods that also learn from an episode's queries."""
        return [row for row in self.rows if row.is_transductive]

    @property
    def best(self) -> Row | None:
        """Inductive row that validated best.

        None if no row was validated, or the validation classes were trained on.
        """
        return next(iter(self.ranked(self.inductive)), None)

    def ranked(self, rows: list[Row]) -> list[Row]:
        """Rows by validation, best first, and on a tie in the order of tables.

        Empty if validation classes were trained on.
        """
        if not self.selects:
            return []
        found = [(row.validation.mean, row) for row in rows if row.validation]
        return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


class FoldedComparison(NamedTuple):
    """The same methods compared on each fold of the classes."""

    folds: list[Comparison]
    directory: pathlib.Path

    @property
    def names(self) -> list[str]:
        """Methods that every fold has."""
        first = [row.name for row in self.folds[0].rows]
        return [name for name in first if len(self.rows(name)) == len(self.folds)]

    @property
    def left_out(self) -> list[str]:
        """Titles of methods that some folds have, but not all."""
        rows = [row for fold in self.folds for row in fold.rows]
        titles = {row.name: row.plain_title for row in rows}
        shared = self.names
        return [title for name, title in titles.items() if name not in shared]

    def rows(self, name: str) -> list[Row]:
        """Returns the row of a method in each fold."""
        return [row for fold in self.folds for row in fold.rows if row.name == name]

    @property
    def best(self) -> str | None:
        """Inductive method with the best mean validation, if any."""
        means = {}
        for name in self.names:
            rows = self.rows(name)
            found = [row.validation.mean for row in rows if row.validation]
            if len(found) == len(rows) and not rows[0].is_transductive:
                means[name] = statistics.fmean(found)
        return max(means, key=means.__getitem__, default=None)


class TestedRun(NamedTuple):
    """A run of a reproduction and its score on its test episodes."""

    seed: int  # of training and of the test episodes
    trained_on: str  # "train" or "train+val"
    step: int  # step of the tested checkpoint
    seconds_trained: float
    scores: EpisodeScores
    share_not_finite: float = 0.0  # share of training steps

    @property
    def accuracy(self) -> Interval:
        """Accuracy with its 95 % interval over episodes."""
        return interval(self.scores.accuracy)

    def as_dict(self) -> dict:
        """Returns the entry in results.json."""
        values = self._asdict()
        calibration = Calibration.of(values.pop("scores")).as_dict()
        return {**values, "accuracy": self.accuracy.as_dict(), **calibration}


class Reproduction(NamedTuple):
    """All runs of the published protocol, and the published accuracy."""

    title: str  # what was tested, in a line
    selection: TestedRun  # trained on the training classes alone
    runs: list[TestedRun]  # trained on the validation classes too, one per seed
    published: tuple[Accuracy, ...]  # to compare with
    note: str  # what to know when comparing; may be empty
    given: Mapping[str, object]  # settings that the user typed
    directory: pathlib.Path

    @property
    def mean(self) -> float:
        """Mean accuracy over runs."""
        return statistics.fmean(run.accuracy.mean for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the runs' accuracies; None for a single run."""
        means = [run.accuracy.mean for run in self.runs]
        return statistics.stdev(means) if len(means) > 1 else None

    @property
    def over_episodes(self) -> Interval:
        """Mean over the episodes of all runs with its 95 % interval."""
        return interval(np.concatenate([run.scores.accuracy for run in self.runs]))


class Trial(NamedTuple):
    """A run of a search with settings of its own."""

    settings: dict[str, float]  # by name; empty for those that were given
    accuracy: Interval | None  # of its best validation; None without a validation
    best_step: int | None  # meta-steps until then
    steps: int  # meta-steps until the last checkpoint
    seconds: float  # they took
    diverged: bool  # whether it ended because too many steps were non-finite
    share_not_finite: float = 0.0  # of all steps
    rungs: tuple[float, ...] = ()  # best accuracy up to each rung it has reached

    @property
    def rank(self) -> float:
        """Score to rank by, higher is better; lowest for a diverged trial."""
        if self.diverged or self.accuracy is None:
            return -math.inf
        return self.accuracy.mean

    def as_dict(self) -> dict:
        """Returns the entry in results.json."""
        return {
            "settings": self.settings,
            "validation_accuracy": self.accuracy and self.accuracy.as_dict(),
            "accuracy_at_rungs": self.rungs,
            "best_step": self.best_step,
            "steps_trained": self.steps,
            "share_not_finite": self.share_not_finite,
            "seconds_trained": self.seconds,
            "diverged": self.diverged,
        }


def best_of(trials: list[Trial]) -> int | None:
    """Returns the index of the best trial (first on a tie); None if all diverged."""
    best = max(range(len(trials)), key=lambda number: trials[number].rank)
    return best if math.isfinite(trials[best].rank) else None
