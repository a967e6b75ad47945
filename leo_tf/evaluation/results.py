"""Test results of a run as numbers; `leo_tf.reports` turns them into text."""

from typing import NamedTuple

from leo_tf.evaluation.calibration import Bins, expected_calibration_error
from leo_tf.evaluation.confidence import OpenSet
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.files import finite

# The method that every method is tested beside.
BASELINE = "centroid"
# Share of non-finite steps above which a remark stands beside the result.
_FEW = 0.02


class Calibration(NamedTuple):
    """Calibration of a method's confidence on test episodes."""

    nll: Interval  # of a query, in nats; 95 % over episodes
    ece: float  # expected calibration error over all queries, of `bins`; 0 to 1
    bins: Bins
    # The same with logits divided by the temperature fitted on validation, if any.
    temperature: float | None = None
    scaled_nll: Interval | None = None
    scaled_ece: float | None = None

    @classmethod
    def of(
        cls, scores: EpisodeScores, temperature: float | None = None
    ) -> "Calibration":
        """Summarises scores; `temperature` is the one of their scaled numbers.

        Raises:
          ValueError: if the scores are not from a calibrated evaluation.
        """
        if scores.nll is None or scores.bins is None:
            raise ValueError("`scores`: expected `nll` and `bins`, received None")
        bins = Bins(*(tuple(map(float, sums)) for sums in scores.bins))
        found = cls(interval(scores.nll), expected_calibration_error(bins), bins)
        if temperature is None or scores.scaled_nll is None or not scores.scaled_bins:
            return found
        nll = interval(scores.scaled_nll)
        ece = expected_calibration_error(scores.scaled_bins)
        return found._replace(temperature=temperature, scaled_nll=nll, scaled_ece=ece)

    def as_dict(self) -> dict:
        """Returns the entry in results.json, with sums over queries of each bin."""
        bins = {name: [*map(finite, s)] for name, s in self.bins._asdict().items()}
        found = {"nll": self.nll.as_dict(), "ece": finite(self.ece), "bins": bins}
        if self.scaled_nll is not None:
            found["temperature"] = self.temperature
            found["nll_scaled"] = self.scaled_nll.as_dict()
            found["ece_scaled"] = finite(self.scaled_ece)
        return found


class Results(NamedTuple):
    """Test accuracy of a method and of nearest centroid on the same episodes."""

    # Test in words: "glyphs, test: 5-way 1-shot, 19 queries per class, step 3000".
    title: str
    methods: dict[str, Interval]  # 95 % over episodes; the tested method is first
    losses: dict[str, float]  # means, by method
    difference: Interval | None  # the first minus the other, paired by episode
    episodes: int  # number of episodes
    # Of the tested method. Bare cosines beside it are not calibrated.
    calibration: Calibration
    share_not_finite: float = 0.0  # share of training steps
    open_set: OpenSet | None = None  # of the tested method, if requested

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {each} %" for name, each in self.methods.items())
        return f"Results({self.title}; {self.episodes} episodes: {found})"

    @property
    def method(self) -> str:
        """Name of the tested method."""
        return next(iter(self.methods))

    @property
    def accuracy(self) -> Interval:
        """Accuracy of the tested method."""
        return self.methods[self.method]


def remark(share_not_finite: float) -> str:
    """Returns the remark beside a result with many non-finite steps, or ""."""
    if share_not_finite <= _FEW:
        return ""
    return f" ({100 * share_not_finite:.0f} % of steps non-finite)"


def results_of(
    scores: dict[str, EpisodeScores],
    title: str,
    share_not_finite: float = 0.0,
    temperature: float | None = None,
    open_set: OpenSet | None = None,
) -> Results:
    """Summarises the scores of a method, the first, and of nearest centroid.

    The last two describe the method, as in `Results`; see `Calibration` for the
    temperature.
    """
    accuracies = {name: score.accuracy for name, score in scores.items()}
    first, *others = accuracies.values()
    return Results(
        title=title,
        methods={name: interval(values) for name, values in accuracies.items()},
        losses={name: score.loss for name, score in scores.items()},
        difference=interval(first - others[0]) if others else None,
        episodes=len(first),
        calibration=Calibration.of(next(iter(scores.values())), temperature),
        share_not_finite=share_not_finite,
        open_set=open_set,
    )
