"""Calibration of a method's confidence: negative log-likelihood, ECE, temperature.

Bins of several batches are added, and the error is computed at the end. Logits may be
logarithms of probabilities, such as of a mean over draws.

Shapes: B episodes in a batch, E in all, N way, Q queries per class, M bins.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.model.losses import cross_entropy

# As in Guo et al., 2017, and most reports of the error since.
NUM_BINS = 15
# The search for the temperature: its bounds, and the number of golden sections.
_COLDEST, _HOTTEST, _SECTIONS = 1e-3, 1e3, 40
_GOLDEN = (5**0.5 - 1) / 2


class Bins(NamedTuple):
    """Sums over queries, binned by the confidence of their answers.

    Bin m holds confidences above m / M, up to (m + 1) / M; the first holds 0, too.
    """

    # [M] queries, probabilities of their answers, right answers.
    count: np.ndarray | tf.Tensor  # type: ignore[assignment]  # hides tuple.count
    confidence: np.ndarray | tf.Tensor
    right: np.ndarray | tf.Tensor

    def __repr__(self) -> str:
        return f"Bins of {float(np.sum(self.count)):.0f} queries"


class Reliability(NamedTuple):
    """Data of a reliability diagram, one entry per non-empty bin."""

    edges: np.ndarray  # [m, 2] lower and upper confidence of the bin
    share: np.ndarray  # [m] of all queries
    confidence: np.ndarray  # [m] mean
    accuracy: np.ndarray  # [m] mean


def episode_nll(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns [B] mean negative log-likelihood of each episode's queries, in nats.

    Logits are [B, ..., N], labels [B, ...] integers in [0, N).
    """
    losses = cross_entropy(logits, labels)
    return tf.reduce_mean(losses, axis=range(1, losses.shape.rank))


def count_bins(logits: tf.Tensor, labels: tf.Tensor, num_bins: int = NUM_BINS) -> Bins:
    """Returns the bins of one batch, over all its queries."""
    # The largest share, without the others; in the logits' dtype, as a rule float32,
    # which is exact enough for each, but not for sums of millions.
    largest = tf.reduce_max(logits, axis=-1, keepdims=True)
    confidence = 1.0 / tf.reduce_sum(tf.exp(logits - largest), axis=-1)  # [B, ...]
    confidence = tf.reshape(tf.cast(confidence, tf.float64), [-1])
    answers = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    right = tf.reshape(tf.cast(answers == labels, tf.float64), [-1])
    # Of a NaN the bin is arbitrary, but its sum is NaN, and so is the error.
    index = tf.cast(tf.math.ceil(confidence * num_bins), tf.int32) - 1
    index = tf.clip_by_value(index, 0, num_bins - 1)
    summed = (tf.ones_like(right), confidence, right)
    return Bins(*(tf.math.unsorted_segment_sum(x, index, num_bins) for x in summed))


def add(left: Bins, right: Bins) -> Bins:
    return Bins(*(mine + its for mine, its in zip(left, right, strict=True)))


def expected_calibration_error(bins: Bins) -> float:
    """Returns the mean over queries of |accuracy - confidence| of their bin, or NaN.

    It is NaN if there is no query, or a logit was NaN.

    Source: Guo et al., 2017 (arXiv:1706.04599), equation 5.
    """
    gaps = np.abs(np.asarray(bins.right) - np.asarray(bins.confidence))
    queries = np.sum(bins.count)
    return float(gaps.sum() / queries) if queries else float("nan")


def reliability(bins: Bins) -> Reliability:
    """Returns accuracy and confidence of each bin, for a diagram."""
    count, confidence, right = (np.asarray(sums, np.float64) for sums in bins)
    filled = np.flatnonzero(count)
    steps = np.arange(len(count) + 1) / len(count)
    return Reliability(
        edges=np.stack([steps[filled], steps[filled + 1]], axis=-1),
        share=count[filled] / count.sum(),
        confidence=confidence[filled] / count[filled],
        accuracy=right[filled] / count[filled],
    )


def best_temperature(logits: np.ndarray) -> float:
    """Returns the temperature of least NLL, which is convex in 1 / temperature.

    The NLL includes one more query, answered by chance. Otherwise answers without a
    mistake would be treated as certain.
    """
    queries = logits.size / logits.shape[-1]

    def nll(log_temperature):
        scaled = logits / np.exp(log_temperature)
        by_chance = scaled.mean(axis=-1)
        right = of_right(scaled)
        right = right + (by_chance - right) / (queries + 1)
        return float(np.mean(log_sum(scaled)[..., 0] - right))

    low, high = np.log([_COLDEST, _HOTTEST])
    step = _GOLDEN * (high - low)
    left, right = high - step, low + step
    at_left, at_right = nll(left), nll(right)
    for _ in range(_SECTIONS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = nll(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = nll(right)
    return float(np.exp((low + high) / 2))


def of_right(values: np.ndarray) -> np.ndarray:
    """Returns [E, N, Q] values of the right class, from [E, N, Q, N]."""
    return np.moveaxis(np.diagonal(values, axis1=1, axis2=3), -1, 1)


def log_sum(logits: np.ndarray) -> np.ndarray:
    """Returns [..., 1] logarithms of the sum of exponentials."""
    largest = logits.max(axis=-1, keepdims=True)
    return largest + np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
