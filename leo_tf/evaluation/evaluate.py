"""Tests several methods on the same episodes: accuracies with intervals.

Shapes: B episodes in a batch, N way, K shot, Q queries per class, D embedding size.
"""

import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable, gather
from leo_tf.environment import is_news
from leo_tf.evaluation.calibration import Bins, add, count_bins, episode_nll
from leo_tf.evaluation.posterior import Draws, average
from leo_tf.evaluation.query_scores import ClassRows, query_scores
from leo_tf.files import AnyPath, read_npz
from leo_tf.model.learner import Adapted, AnyLearner, adapt_and_score, loss_parts
from leo_tf.model.losses import accuracy

tf.get_logger().addFilter(is_news)  # a notebook trains and evaluates many times


class EpisodeScores(NamedTuple):
    """Scores of one method on E episodes; tensors of B episodes within a batch.

    The other fields measure calibration, if requested. The last two use logits divided
    by the method's temperature, if it has one.
    """

    accuracy: np.ndarray  # [E]
    loss: float  # the mean
    nll: np.ndarray | None = None  # [E] of an episode's queries, mean, in nats
    bins: Bins | None = None
    scaled_nll: np.ndarray | None = None
    scaled_bins: Bins | None = None


def evaluate(
    learners: Mapping[str, AnyLearner],
    episodes: EpisodesByRow | Iterable[Episode],
    on_batch: Callable[[int], None] = lambda episodes: None,
    **options: Any,
) -> dict[str, EpisodeScores]:
    """Scores every built method, by name, on the same episodes, in their order.

    Args:
      learners: name -> built method.
      episodes: a finite number, in batches. EpisodesByRow need no memory for queries.
      on_batch: called with the number of episodes of each batch, for progress.
      options: options of `make_scorer`.
    """
    if isinstance(episodes, EpisodesByRow):
        scorer = make_scorer(learners, episodes.table, **options)
        return collect(scorer, episodes.rows, on_batch)
    return collect(make_scorer(learners, **options), episodes, on_batch)


def make_scorer(
    learners: Mapping[str, AnyLearner],
    table: FeatureTable | None = None,
    *,
    calibrated: bool = False,
    draws: Draws | None = None,
    temperatures: Mapping[str, float] | None = None,
) -> Callable:
    """Returns a `tf.function` of an Episode and its number, for `collect`.

    Args:
      learners: as for `evaluate`.
      table: if given, the scorer takes EpisodeRows of this table instead.
      calibrated: also measures the methods' calibration.
      draws: draws of z and w to average over, if a method has any; None for means.
      temperatures: method -> temperature to measure its calibration at, too.
    """
    by_class = None if table is None else ClassRows.of(table)

    @tf.function(autograph=False)
    def score(batch, first):
        # By row, only methods that answer them together want the queries' embeddings,
        # and episodes whose queries are not by class: otherwise they are not gathered.
        episode = gather(by_class.table, batch) if by_class else batch
        support = episode.support_inputs

        def answer(learner, **mode):
            adapted = learner.adapt(support, episode.support_labels, **mode)
            classifier = adapted.classifier
            if by_class is None or batch.labels is not None:
                return adapted, learner.logits(classifier, episode.query_inputs)
            return adapted, query_scores(learner, classifier, batch, by_class)

        def answer_draw(learner, seed, number):
            shape = support.shape.as_list()
            drawn = learner.draw_posterior(shape, seed, number, first)
            return answer(learner, training=True, noise=drawn)

        scores = {}
        for name, learner in learners.items():
            if hasattr(learner, "answer"):
                adapted, logits = adapt_and_score(learner, episode)
            elif draws is not None and getattr(learner, "has_posterior", False):
                drawn = functools.partial(answer_draw, learner, draws.seed)
                adapted, logits = average(drawn, draws.count)
            else:
                adapted, logits = answer(learner)
            labels = episode.query_labels
            found = _batch_scores(adapted, logits, labels, calibrated)
            if temperatures and name in temperatures:
                scaled = logits / temperatures[name]
                nll, bins = _calibration(scaled, labels)
                found = found._replace(scaled_nll=nll, scaled_bins=bins)
            scores[name] = found
        return scores

    return score


def save(scores: EpisodeScores) -> bytes:
    """Returns the content of a file of scores, for `load`."""
    file, found = io.BytesIO(), scores._asdict().items()
    np.savez(file, **{name: value for name, value in found if value is not None})
    return file.getvalue()


def load(path: AnyPath) -> EpisodeScores:
    """Returns the scores in a file whose content is from `save`.

    Raises:
      OSError, ValueError: if the file cannot be read.
    """
    found: dict[str, Any] = read_npz(path)
    found["loss"] = float(found["loss"])
    for name in {"bins", "scaled_bins"} & found.keys():
        found[name] = Bins(*found[name])
    return EpisodeScores(**found)


def _calibration(logits, labels):
    """Returns the NLL of each episode, and counts for calibration errors."""
    return episode_nll(logits, labels), count_bins(logits, labels)


def _batch_scores(adapted: Adapted, logits, labels, calibrated) -> EpisodeScores:
    loss = tf.add_n(list(loss_parts(adapted, logits, labels).values()))
    scores = EpisodeScores(accuracy(logits, labels), loss)
    if not calibrated:
        return scores
    nll, bins = _calibration(logits, labels)
    return scores._replace(nll=nll, bins=bins)


def collect(
    scorer: Callable,
    episodes: Iterable,
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, EpisodeScores]:
    """Runs a scorer over batches of its arguments; see `evaluate`."""
    batches: dict[str, list[EpisodeScores]] = {}
    done = 0
    for episode in episodes:
        for name, scores in scorer(episode, tf.constant(done)).items():
            scores = tf.nest.map_structure(_to_numpy, scores)
            batches.setdefault(name, []).append(scores)
        count = len(scores.accuracy)
        done += count
        on_batch(count)
    return {name: _joined(parts) for name, parts in batches.items()}


def _to_numpy(tensor):
    return None if tensor is None else tensor.numpy()


def _joined(batches: list[EpisodeScores]) -> EpisodeScores:
    """Returns the scores of all batches together."""
    accuracies, losses, *more = zip(*batches)
    sizes = list(map(len, accuracies))
    loss = sum(float(loss) * size for loss, size in zip(losses, sizes)) / sum(sizes)
    right = np.concatenate(accuracies).astype(np.float64)
    nll, bins, scaled_nll, scaled_bins = more
    return EpisodeScores(
        *(right, loss, _concatenated(nll), _added(bins)),
        *(_concatenated(scaled_nll), _added(scaled_bins)),
    )


def _concatenated(parts) -> np.ndarray | None:
    return None if parts[0] is None else np.concatenate(parts).astype(np.float64)


def _added(parts) -> Bins | None:
    return None if parts[0] is None else functools.reduce(add, parts)
