"""Accuracy over many episodes, with an interval, of several methods at once.

Shapes: B episodes in a batch, N way, K shot, Q queries per class, D embedding size.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data_pipeline.episode import Episode, EpisodeRows
from data_pipeline.pipeline import EpisodesByRow, FeatureTable
from leo_tf.learner import Learner
from leo_tf.losses import accuracy
from leo_tf.meta_step import answer, loss_parts
from leo_tf.query_scores import ClassRows, query_scores

# A batch of episodes takes about this much memory, whatever the number of queries.
_BATCH_BYTES = 64 * 2**20
# The relation network's [B, N * K, N * K, 2 * Z] pairs, before and after its layers.
_LIVE_PAIRS = 3
# The queries' scores: of a class, of an episode, as log-probabilities, and products.
_LIVE_SCORES = 4
_NORMAL_95 = 1.959964  # two-sided 95 % quantile of N(0, 1)


class Interval(NamedTuple):
    """A mean over episodes and the half-width of its 95 % confidence interval."""

    mean: float
    half_width: float

    def __str__(self):
        return f"{100 * self.mean:.2f} ± {100 * self.half_width:.2f}"


class EpisodeScores(NamedTuple):
    """What one method scored: accuracy [E] of each episode, and its mean loss."""

    accuracy: np.ndarray
    loss: float


def interval(values: np.ndarray) -> Interval:
    """Mean of [E] values with its 95 % interval, the normal one, over episodes.

    A single value has an interval of unknown, here infinite, width.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), math.inf)
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(values.mean()), float(_NORMAL_95 * error))


def batch_size_for(
    episodes: int,
    way: int,
    shot: int,
    num_query: int,
    embedding_size: int,
    num_latents: int = 0,
    itemsize: int = 4,
) -> int:
    """How many episodes to evaluate at once: bounded by memory, never by `episodes`.

    An episode takes its support, the pairs of the relation network, and the scores of
    its queries.

    Returns:
      B, at most `episodes`, the largest divisor of it that fits where one at least
      half as large does, so that the last batch is not smaller than the others.
    """
    examples = way * shot * embedding_size
    scores = _LIVE_SCORES * way * num_query * way
    pairs = _LIVE_PAIRS * (way * shot) ** 2 * 2 * num_latents
    most = max(
        1, min(episodes, _BATCH_BYTES // (itemsize * (examples + scores + pairs)))
    )
    divisors = [b for b in range(most, most // 2, -1) if episodes % b == 0]
    return divisors[0] if divisors else most


def evaluate(
    learners: Mapping[str, Learner],
    episodes: EpisodesByRow | Iterable[Episode],
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, EpisodeScores]:
    """Scores every method on the same episodes, without noise or sampling.

    Args:
      learners: name -> built method.
      episodes: finitely many, in batches. By row they need no memory for the queries.
      on_batch: called with the number of episodes of each batch, for progress.

    Returns:
      name -> `EpisodeScores`, in the episodes' order.
    """
    if isinstance(episodes, EpisodesByRow):
        return collect(make_scorer(learners, episodes.table), episodes.rows, on_batch)
    return collect(make_scorer(learners), episodes, on_batch)


def make_scorer(
    learners: Mapping[str, Learner], table: FeatureTable | None = None
) -> Callable:
    """A `tf.function` of an Episode: name -> ([B] accuracies, [] loss).

    With a table it is a function of EpisodeRows of that table instead.
    """
    by_class = None if table is None else ClassRows.of(table)

    @tf.function(autograph=False)
    def score(episode):
        scores = {}
        for name, learner in learners.items():
            if by_class is None:
                (adapted, logits), labels = (
                    answer(learner, episode),
                    episode.query_labels,
                )
            else:
                adapted, logits, labels = _answer_by_class(learner, episode, by_class)
            parts = loss_parts(adapted, logits, labels)
            right = accuracy(logits, labels)  # [B]
            scores[name] = right, tf.add_n(list(parts.values()))
        return scores

    return score


def _answer_by_class(learner, rows: EpisodeRows, by_class: ClassRows):
    """What adaptation gave, the [B, N, Q, N] logits, and the [B, N, Q] labels."""
    labels = tf.range(rows.classes.shape[-1])[:, tf.newaxis]  # [N, 1]
    support = tf.gather(by_class.features, rows.support)  # [B, N, K, D]
    adapted = learner.adapt(support, tf.zeros_like(rows.support) + labels)
    logits = query_scores(learner, adapted.classifier, rows, by_class)
    return adapted, logits, tf.zeros_like(rows.query) + labels


def collect(
    scorer: Callable,
    episodes: Iterable,
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, EpisodeScores]:
    """Runs a scorer over batches of what it is a function of; see `evaluate`."""
    accuracies, losses = {}, {}
    for episode in episodes:
        for name, (right, loss) in scorer(episode).items():
            accuracies.setdefault(name, []).append(right.numpy())
            losses.setdefault(name, []).append(float(loss) * len(right))
        on_batch(len(right))
    scores = {}
    for name, parts in accuracies.items():
        right = np.concatenate(parts).astype(np.float64)
        scores[name] = EpisodeScores(right, sum(losses[name]) / len(right))
    return scores
