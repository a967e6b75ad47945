"""What jobs of several runs found, in numbers: comparison, reproduction, search."""

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
from leo_tf.methods.variants import variant_named


class Row(NamedTuple):
    """One method of a comparison."""

    name: str  # METHOD or METHOD@TRANSFORM
    accuracy: Interval  # 95 % over episodes
    difference: Interval | None  # to the reference, paired by episode; None for itself
    calibration: Calibration
    parameters: int  # how many numbers meta-steps change
    best_step: int  # meta-steps of the checkpoint that was tested
    steps: int  # meta-steps made in all, up to the last checkpoint
    diverged: bool  # whether training ended because steps were no longer finite
    seconds_trained: float
    seconds_to_adapt: float  # median over tasks, one at a time
    chosen: dict[str, float]  # on the validation episodes, by name
    settings: dict[str, object]  # that are this method's own, by name
    share_not_finite: float = 0.0  # of the training steps
    validation: Interval | None = None  # accuracy of that checkpoint there
    open_set: OpenSet | None = None  # if asked for
    transform: str = "none"  # of the features that it stands on
    shared: bool = True  # whether all rows stand on that one
    ensemble: str = "none"  # the closed form that it is mixed with
    is_exportable: bool = True

    @property
    def plain_title(self) -> str:
        """Its name, and its transform where that is not the one of all."""
        variant = variant_named(self.name)
        other = self.ensemble
        title = variant.title if other == "none" else f"{variant.title} + {other}"
        own = variant.transform or variant.entry.feature_transform
        if self.shared or own or self.transform == "none":
            return title
        return f"{title}, {self.transform}"

    @property
    def words(self) -> str:
        """Its method and its transform, in a sentence."""
        method = variant_named(self.name).entry
        other = "" if self.ensemble == "none" else f" + {self.ensemble}"
        if method.feature_transform:
            return method.title
        features = "features as they are"
        if self.transform != "none":
            features = f"{self.transform} features"
        return f"{method.title}{other} on {features}"

    @property
    def title(self) -> str:
        """Its name in tables, and a remark if many of its steps were not finite."""
        return self.plain_title + remark(self.share_not_finite)

    @property
    def is_transductive(self) -> bool:
        """Whether the method learns from an episode's queries, too."""
        return variant_named(self.name).entry.transductive

    def as_dict(self) -> dict:
        """Returns what results.json holds."""
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
    reference: str  # the name of the row that differences are to
    dataset: str
    shape: Mapping[str, object]  # of the episodes: see `dataset.evaluation_shape`
    episodes: int  # how many
    samples: int  # draws that predictions are averaged over where a method draws, or 0
    given: Mapping[str, object]  # the settings that were typed
    selects: bool  # whether checkpoints were selected by validation accuracy
    directory: pathlib.Path
    lead: Interval | None = None  # of `best` to the next, paired by validation episode

    @property
    def reference_title(self) -> str:
        """The name of the reference in tables."""
        return {row.name: row.plain_title for row in self.rows}[self.reference]

    @property
    def inductive(self) -> list[Row]:
        """The rows of methods that answer each query by itself."""
        return [row for row in self.rows if not row.is_transductive]

    @property
    def transductive(self) -> list[Row]:
        """The rows of methods that learn from an episode's queries, too."""
        return [row for row in self.rows if row.is_transductive]

    @property
    def best(self) -> Row | None:
        """The inductive row that validated best; None if there is no telling.

        There is not where the validation classes were trained on.
        """
        return next(iter(self.ranked(self.inductive)), None)

    def ranked(self, rows: list[Row]) -> list[Row]:
        """Rows by validation, the best first; of equal ones, as tables list them.

        Empty if validation classes were trained on.
        """
        if not self.selects:
            return []
        found = [(row.validation.mean, row) for row in rows if row.validation]
        return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


class FoldedComparison(NamedTuple):
    """The same methods, compared on each of the folds of the classes."""

    folds: list[Comparison]
    directory: pathlib.Path

    @property
    def names(self) -> list[str]:
        """The methods that every fold has; one whose transform did not fit is none."""
        found = [{row.name for row in fold.rows} for fold in self.folds]
        shared = set.intersection(*found)
        return [row.name for row in self.folds[0].rows if row.name in shared]

    def rows(self, name: str) -> list[Row]:
        """Returns the row of a method in each fold."""
        return [row for fold in self.folds for row in fold.rows if row.name == name]

    @property
    def best(self) -> str | None:
        """The inductive method that validated best in the mean, if any did."""
        means = {}
        for name in self.names:
            rows = self.rows(name)
            found = [row.validation.mean for row in rows if row.validation]
            if len(found) == len(rows) and not rows[0].is_transductive:
                means[name] = statistics.fmean(found)
        return max(means, key=means.__getitem__, default=None)


class TestedRun(NamedTuple):
    """One run of a reproduction and what it scored on its test episodes."""

    seed: int  # of training and of the test episodes
    trained_on: str  # "train" or "train+val"
    step: int  # of the checkpoint that was tested
    seconds_trained: float
    scores: EpisodeScores
    share_not_finite: float = 0.0  # of the training steps

    @property
    def accuracy(self) -> Interval:
        """With its 95 % interval over episodes."""
        return interval(self.scores.accuracy)

    def as_dict(self) -> dict:
        """Returns what results.json holds."""
        values = self._asdict()
        calibration = Calibration.of(values.pop("scores")).as_dict()
        return {**values, "accuracy": self.accuracy.as_dict(), **calibration}


class Reproduction(NamedTuple):
    """All runs of the published protocol, and what was published."""

    title: str  # what was tested, in a line
    selection: TestedRun  # trained on the training classes alone
    runs: list[TestedRun]  # trained on the validation classes too, one a seed
    published: tuple[Accuracy, ...]  # to compare with
    note: str  # what to know when comparing; may be empty
    given: Mapping[str, object]  # the settings that were typed
    directory: pathlib.Path

    @property
    def mean(self) -> float:
        """Mean accuracy over runs."""
        return statistics.fmean(run.accuracy.mean for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the runs' accuracies; None of a single run."""
        means = [run.accuracy.mean for run in self.runs]
        return statistics.stdev(means) if len(means) > 1 else None

    @property
    def over_episodes(self) -> Interval:
        """Mean over the episodes of all runs with its 95 % interval."""
        return interval(np.concatenate([run.scores.accuracy for run in self.runs]))


class Trial(NamedTuple):
    """A run of a search, with settings of its own."""

    settings: dict[str, float]  # by name; empty for those that were given
    accuracy: Interval | None  # of its best validation; None if there was none
    best_step: int | None  # meta-steps until then
    steps: int  # meta-steps until the last checkpoint
    seconds: float  # they took
    diverged: bool  # whether it ended because too many steps were not finite
    share_not_finite: float = 0.0  # of all steps
    rungs: tuple[float, ...] = ()  # best accuracy up to each rung it has reached

    @property
    def rank(self) -> float:
        """Higher is better; lowest where no run to the end is to be hoped for."""
        if self.diverged or self.accuracy is None:
            return -math.inf
        return self.accuracy.mean

    def as_dict(self) -> dict:
        """Returns what results.json holds."""
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
    """Index of the best trial (the first on a tie); None if all diverged."""
    best = max(range(len(trials)), key=lambda number: trials[number].rank)
    return best if math.isfinite(trials[best].rank) else None
