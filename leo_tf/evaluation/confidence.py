"""Fits confidence: the temperature, "none of these", and sets of classes.

All three are fitted to one checkpoint on validation episodes, with added queries of
other classes, which are to be detected as "none of these". A test measures all three
on test classes.

Shapes: E episodes, N way, Q queries per class, U classes outside an episode, L levels
of a table.
"""

from typing import Any, NamedTuple

import numpy as np

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.dataset import Split
from leo_tf.evaluation.calibration import best_temperature, log_sum, of_right
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.open_episodes import Answers, answers_as_tested
from leo_tf.model.learner import AnyLearner

# Shares of queries for which the tables of a `Confidence` have a number.
LEVELS = np.arange(201) / 200
# Measures of how much a query looks as if it were of a class of the episode. The last
# does not come from logits: it is the largest cosine of the query with a class mean.
SCORES = "probability", "logit", "energy", "cosine"
_USUAL_SCORE = "logit"  # if there are no classes outside to choose it by
FALSE_ALARMS, COVERAGE = 0.05, 0.9  # tests report the shares reached
_FITTED_ON = 500  # episodes


class Confidence(NamedTuple):
    """Fitted confidence of a checkpoint, saved in confidence.json and in exports."""

    step: int  # of the checkpoint
    basis: str  # digest of what it was made of: see `runs.fitted.basis_of`
    way: int
    shot: int
    episodes: int
    temperature: float  # logits are divided by it
    score: str  # the one of `SCORES` that detects classes outside best
    auroc: dict[str, float]  # of each of `SCORES` there; empty without other classes
    known: tuple[float, ...]  # [L] quantiles of that score, of `mixed`
    least: tuple[float, ...]  # [L] least probability of a class in the set

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of confidence.json."""
        return {**self._asdict(), "known": [*self.known], "least": [*self.least]}

    @classmethod
    def from_dict(cls, values: Any) -> "Confidence":
        """Restores a `Confidence` from the output of `as_dict`.

        Raises:
          ValueError: if `values` is not such an output.
        """
        try:
            found = cls(**values)
            tables = found.known, found.least
            numbers = found.temperature, *tables[0], *tables[1], *found.auroc.values()
            counts = found.step, found.way, found.shot, found.episodes
            is_right = (
                all(type(number) in (int, float) for number in numbers)
                and np.all(np.isfinite(numbers))
                and found.temperature > 0
                and all(type(count) is int for count in counts)
                and all(len(table) == len(LEVELS) for table in tables)
                and found.score in SCORES
                and set(found.auroc) in (set(), set(SCORES))
            )
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from error
        if not is_right:
            raise ValueError("a field of another kind")
        return found._replace(known=tuple(found.known), least=tuple(found.least))


class OpenSet(NamedTuple):
    """Test results of "none of these" and of prediction sets, with 95 % intervals.

    Shares are of an episode's queries of its own classes, or of other classes. Only the
    queries of sets may be unbalanced. Methods that draw use means.
    """

    auroc: dict[str, Interval]  # of each of `SCORES`
    fpr: dict[str, Interval]  # others accepted where 95 % of known ones are
    score: str  # the score that was best on validation episodes
    false_alarms: Interval  # known ones rejected, at `FALSE_ALARMS` of validation
    found: Interval  # others rejected at that threshold
    coverage: Interval  # sets with the right class, for `COVERAGE`
    size: Interval  # classes of such a set
    episodes: int
    num_query: int  # of a class
    outside: int  # classes outside an episode

    def as_dict(self) -> dict[str, Any]:
        """Returns the entry in results.json."""
        return {
            name: value.as_dict()
            if isinstance(value, Interval)
            else {score: each.as_dict() for score, each in value.items()}
            if isinstance(value, dict)
            else value
            for name, value in self._asdict().items()
        }


def fit(
    learner: AnyLearner,
    config: Config,
    split: Split,
    step: int,
    basis: str = "",
    console: Console = SILENT,
) -> Confidence | None:
    """Fits `Confidence` to a method on validation episodes.

    Returns None if a score is non-finite. `step` and `basis` are as in `Confidence`.
    """
    count, shape = min(_FITTED_ON, config.run.num_val_episodes), config.episodes
    found = answers_as_tested(learner, config, split, count, console, "confidence")
    if not all(np.isfinite(each).all() for each in found):
        return None
    episodes_are = shape.evaluation_way, shape.evaluation_shot, len(found.inside)
    return Confidence(step, basis, *episodes_are, **fit_to(found))


def fit_to(found: Answers) -> dict[str, Any]:
    """Returns fields of a `Confidence`, fitted to answers to validation episodes.

    Sets are conformal: all episodes have equal weight, and one more episode is assumed
    to be the worst case. If new episodes are like the validation episodes, a set
    contains the right class at least as often as asked for (Fisch et al., 2021,
    arXiv:2102.08898, with tasks as examples; the weights are those of Lee et al., 2023,
    arXiv:2306.06342). This is approximate: the temperature, the checkpoint and an
    ensemble's share come from validation episodes too, and episodes share few classes.
    """
    temperature = best_temperature(found.inside)
    auroc, score = {}, _USUAL_SCORE
    if found.outside.size:
        sides = {name: _sides(found, name, temperature) for name in SCORES}
        auroc = {name: float(_auroc(*pair).mean()) for name, pair in sides.items()}
        # On a tie the logit: it says more than a probability that is rounded to 1.
        score = max(SCORES, key=lambda name: (auroc[name], name == _USUAL_SCORE))
    # It is meant for requests with queries of other classes.
    mixed, _ = _sides(found, score, temperature)
    shares = np.sort(of_right(_softmax(found.inside / temperature)), axis=None)
    # How many of the lowest shares may be left out; below 0 if the level is too high.
    episodes = len(found.inside)
    most = (1 - LEVELS * (episodes + 1) / episodes) * len(shares)  # [L]
    at = np.clip(np.floor(most), 0, len(shares) - 1).astype(int)
    least = np.where(most < 0, 0.0, shares[at])
    known = np.quantile(mixed, LEVELS)
    return {
        "temperature": temperature,
        "score": score,
        "auroc": auroc,
        "known": tuple(map(float, known)),
        "least": tuple(map(float, least)),
    }


def tested(found: Answers, fitted: Confidence) -> OpenSet:
    """Tests a fitted `Confidence` of a method on other episodes."""
    sides = {name: _sides(found, name, fitted.temperature) for name in SCORES}
    inside, outside = sides[fitted.score]
    threshold = np.interp(FALSE_ALARMS, LEVELS, fitted.known)
    shares = _softmax(found.inside / fitted.temperature)  # [E, N, Q, N]
    least = np.interp(COVERAGE, LEVELS, fitted.least)
    # The answer is always in its set.
    chosen = (shares >= least) | (shares == shares.max(axis=-1, keepdims=True))
    holds, size = of_right(chosen), chosen.sum(axis=-1)
    return OpenSet(
        {name: interval(_auroc(*pair)) for name, pair in sides.items()},
        {name: interval(_fpr(*pair)) for name, pair in sides.items()},
        fitted.score,
        false_alarms=_mean(inside < threshold),
        found=_mean(outside < threshold),
        coverage=_mean(holds),
        size=_mean(size),
        episodes=len(found.outside),
        num_query=found.outside.shape[2],
        outside=found.outside.shape[1],
    )


def _mean(values: np.ndarray) -> Interval:
    """Returns the mean of [E, ...] with its interval over episodes."""
    return interval(values.reshape([len(values), -1]).mean(axis=1))


def _sides(found: Answers, name: str, temperature: float) -> tuple:
    """Returns [E, N * Q] and [E, U * Q] values of one of `SCORES`."""
    if name == "cosine":
        sides = found.cosine_inside, found.cosine_outside
    else:
        logits = found.mixed / temperature, found.outside / temperature
        score = {
            "probability": lambda x: _softmax(x).max(axis=-1),
            "logit": lambda x: x.max(axis=-1),
            "energy": lambda x: log_sum(x)[..., 0],
        }[name]
        sides = score(logits[0]), score(logits[1])
    return tuple(side.reshape([len(side), -1]) for side in sides)


def _auroc(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Returns [E] chances that an inside query scores above an outside one.

    Computed by ranks, so that memory does not grow with the number of pairs.
    """
    both = np.concatenate([inside, outside], axis=1)  # [E, I + O]
    order = np.argsort(both, axis=1)
    ascending = np.take_along_axis(both, order, axis=1)
    places = np.broadcast_to(np.arange(both.shape[1]), both.shape)
    begins = np.diff(ascending, axis=1, prepend=-np.inf) > 0
    ends = np.diff(ascending, axis=1, append=np.inf) > 0
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    last = np.where(ends, places, both.shape[1])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty_like(both)  # from 0 on; of equal ones, their mean
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    count = inside.shape[1]
    above = ranks[:, :count].sum(axis=1) - count * (count - 1) / 2
    return above / (count * outside.shape[1])


def _fpr(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Returns [E] shares of outside queries above the level that 95 % inside exceed."""
    threshold = np.quantile(inside, 1 - 0.95, axis=1, keepdims=True)
    return (outside >= threshold).mean(axis=1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - log_sum(logits))
