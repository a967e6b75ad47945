"""Accuracy over many episodes, with an interval, of several methods at once.

Shapes: B episodes in a batch, N way, K shot, Q queries per class, D embedding size.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.learner import Learner
from leo_tf.losses import accuracy
from leo_tf.meta_step import answer, loss_parts

# A batch of episodes takes about this much memory, whatever the number of queries.
_BATCH_BYTES = 64 * 2**20
# The relation network's [B, N * K, N * K, 2 * Z] pairs, before and after its layers.
_LIVE_PAIRS = 3
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

    An episode takes its examples, and the pairs of the relation network.

    Returns:
      B, at most `episodes`, the largest divisor of it that fits where one at least
      half as large does, so that the last batch is not smaller than the others.
    """
    examples = way * (shot + num_query) * embedding_size
    pairs = _LIVE_PAIRS * (way * shot) ** 2 * 2 * num_latents
    most = max(1, min(episodes, _BATCH_BYTES // (itemsize * (examples + pairs))))
    divisors = [b for b in range(most, most // 2, -1) if episodes % b == 0]
    return divisors[0] if divisors else most


def evaluate(
    learners: Mapping[str, Learner],
    dataset: tf.data.Dataset,
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, EpisodeScores]:
    """Scores every method on the same episodes, without noise or sampling.

    Args:
      learners: name -> built method.
      dataset: of `Episode`, finite.
      on_batch: called with the number of episodes of each batch, for progress.

    Returns:
      name -> `EpisodeScores`, in the episodes' order.
    """
    return collect(make_scorer(learners), dataset, on_batch)


def make_scorer(learners: Mapping[str, Learner]) -> Callable:
    """A `tf.function` of an episode: name -> ([B] accuracies, [] loss)."""

    @tf.function(autograph=False)
    def score(episode):
        scores = {}
        for name, learner in learners.items():
            adapted, logits = answer(learner, episode)
            parts = loss_parts(adapted, logits, episode.query_labels)
            right = accuracy(logits, episode.query_labels)  # [B]
            scores[name] = right, tf.add_n(list(parts.values()))
        return scores

    return score


def collect(
    scorer: Callable,
    dataset: tf.data.Dataset,
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, EpisodeScores]:
    """Runs a scorer over a dataset; see `evaluate`."""
    accuracies, losses = {}, {}
    for episode in dataset:
        for name, (right, loss) in scorer(episode).items():
            accuracies.setdefault(name, []).append(right.numpy())
            losses.setdefault(name, []).append(float(loss) * len(right))
        on_batch(len(episode.support_labels))
    scores = {}
    for name, parts in accuracies.items():
        right = np.concatenate(parts).astype(np.float64)
        scores[name] = EpisodeScores(right, sum(losses[name]) / len(right))
    return scores
