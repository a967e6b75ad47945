"""Negative log-likelihood and calibration error, against loops and by hand.

Shapes: B episodes, N way, Q queries per class.
"""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.evaluation import calibration
from leo_tf.evaluation.calibration import (
    count_bins,
    episode_nll,
    expected_calibration_error,
)

B, N, Q = 6, 3, 4


def make_answers(seed=0, scale=2.0, dtype="float64"):
    random = np.random.default_rng(seed)
    logits = (scale * random.normal(size=[B, N, Q, N])).astype(dtype)
    return tf.constant(logits), tf.constant(random.integers(N, size=[B, N, Q]))


def naive_ece(logits, labels, num_bins):
    """Returns the ECE of one list of queries, by a loop over bins."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    shares, labels = shares.reshape([-1, N]), labels.ravel()
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    error = 0.0
    for m in range(num_bins):
        inside = (confidence > m / num_bins) & (confidence <= (m + 1) / num_bins)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            error += inside.mean() * abs(gap)
    return error


def test_the_likelihood_of_each_episode_is_that_of_its_own_queries():
    logits, labels = make_answers()
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for b, nll in enumerate(episode_nll(logits, labels)):
        right = [shares[b, n, q, labels[b, n, q]] for n, q in np.ndindex(N, Q)]
        np.testing.assert_allclose(nll, -np.mean(np.log(right)), rtol=1e-10)
    flat = episode_nll(tf.reshape(logits, [B, -1, N]), tf.reshape(labels, [B, -1]))
    np.testing.assert_allclose(flat, episode_nll(logits, labels), rtol=1e-12)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_the_calibration_error_equals_a_loop_over_bins(num_bins):
    logits, labels = make_answers()
    bins = count_bins(logits, labels, num_bins)
    expected = naive_ece(logits.numpy(), labels.numpy(), num_bins)
    assert expected > 0.01
    np.testing.assert_allclose(expected_calibration_error(bins), expected, rtol=1e-10)


def test_four_answers_by_hand():
    # Sure of 0.8 and right once of twice; sure of 0.6 and right twice of twice.
    shares = [[0.8, 0.2], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]]
    bins = count_bins(np.log([shares]), np.array([[0, 0, 0, 1]]), num_bins=2)
    # All four are in the upper bin: accuracy 0.75, confidence 0.7.
    assert expected_calibration_error(bins) == pytest.approx(0.05)
    bins = count_bins(np.log([shares]), np.array([[0, 0, 0, 1]]), num_bins=4)
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    shown = calibration.reliability(bins)
    np.testing.assert_allclose(shown.edges, [[0.5, 0.75], [0.75, 1.0]])
    np.testing.assert_allclose(shown.share, [0.5, 0.5])
    np.testing.assert_allclose(shown.confidence, [0.6, 0.8])
    np.testing.assert_allclose(shown.accuracy, [1.0, 0.5])


def test_batches_add_up_to_the_bins_of_all_their_queries():
    logits, labels = make_answers()
    parts = [count_bins(logits[i : i + 2], labels[i : i + 2]) for i in range(0, B, 2)]
    whole = count_bins(logits, labels)
    for mine, its in zip(functools.reduce(calibration.add, parts), whole):
        np.testing.assert_allclose(mine, its, rtol=1e-12)
    assert np.sum(whole.count) == B * N * Q
    # The mean of the parts' errors would be another number.
    errors = [expected_calibration_error(part) for part in parts]
    assert abs(np.mean(errors) - expected_calibration_error(whole)) > 1e-3


def test_certainty_is_in_the_last_bin_and_uniform_answers_are_counted():
    logits = tf.constant([[[1000.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    bins = count_bins(logits, tf.constant([[0, 0]]))
    assert len(bins.count) == 15 and bins.count[14] == 1
    assert np.sum(bins.count) == np.sum(bins.right) == 2
    assert expected_calibration_error(bins) == pytest.approx((0 + 2 / 3) / 2)


def test_answers_drawn_with_their_own_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    logits = 2.0 * random.normal(size=[1, 100_000, N])
    labels = np.argmax(logits + random.gumbel(size=logits.shape), axis=-1)
    for scale, low, high in ((1.0, 0.0, 0.01), (3.0, 0.1, 0.5), (0.3, 0.1, 0.5)):
        error = expected_calibration_error(count_bins(scale * logits, labels))
        assert low <= error < high


def test_log_probabilities_serve_as_logits():
    logits, labels = make_answers()
    logs = tf.nn.log_softmax(logits)
    np.testing.assert_allclose(
        episode_nll(logs, labels), episode_nll(logits, labels), rtol=1e-12
    )
    for mine, its in zip(count_bins(logs, labels), count_bins(logits, labels)):
        np.testing.assert_allclose(mine, its, rtol=1e-12)


def test_a_nan_or_no_query_at_all_gives_no_number():
    logits, labels = make_answers()
    spoiled = tf.concat([logits[:1] * math.nan, logits[1:]], axis=0)
    assert math.isnan(expected_calibration_error(count_bins(spoiled, labels)))
    assert math.isnan(expected_calibration_error(count_bins(logits[:0], labels[:0])))


def test_float32_answers_are_summed_in_float64_in_a_graph_too():
    few = make_answers(dtype="float32")
    logits, labels = (np.concatenate([part] * 10_000) for part in few)
    graph = tf.function(count_bins)(tf.constant(logits), tf.constant(labels))
    for mine, its in zip(graph, count_bins(tf.cast(logits, tf.float64), labels)):
        assert mine.dtype == tf.float64
        # Each is rounded to float32, yet sums of so many in it would be off by 1e-4.
        np.testing.assert_allclose(mine, its, rtol=2e-7)
