"""Losses and regularisers against loops and hand arithmetic.

Shapes: B tasks, N way, K shot, Q queries per class, Z latent size.
"""

import math

import numpy as np
import numpy_leo
import pytest
import tensorflow as tf

from leo_tf.model.losses import (
    accuracy,
    cross_entropy,
    encoder_penalty,
    l2_penalty,
    orthogonality_penalty,
)

LABELS = np.array([[[0, 2, 1, 1], [2, 2, 0, 1], [0, 0, 1, 2]]] * 2, np.int32)


def scores():
    return np.random.default_rng(0).normal(size=[2, 3, 4, 3])  # [B, N, Q, N]


def test_cross_entropy_equals_a_loop_over_examples():
    losses = cross_entropy(tf.constant(scores()), tf.constant(LABELS))
    for index in np.ndindex(LABELS.shape):
        expected = numpy_leo.cross_entropy(scores()[index], LABELS[index])
        np.testing.assert_allclose(losses[index], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_stands_logits_of_ten_thousand(dtype):
    logits = tf.constant([[1e4, -1e4, 0], [1e4, 1e4, 1e4]], dtype)
    losses = [cross_entropy(logits, tf.constant([n, n])).numpy() for n in range(3)]
    expected = [[0, math.log(3)], [2e4, math.log(3)], [1e4, math.log(3)]]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_the_cross_entropys_gradient_is_shares_minus_target():
    logits, labels = tf.constant(scores()), tf.constant(LABELS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(logits, labels)
    shares = np.exp(scores()) / np.exp(scores()).sum(axis=-1, keepdims=True)
    expected = shares - np.eye(3)[LABELS]
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-12)


def test_accuracy_is_the_share_of_highest_scores_that_are_right():
    logits = np.eye(3)[LABELS].copy()
    logits[0, 0, :3] = -logits[0, 0, :3]  # three of twelve go wrong in the first task
    logits[1, 2, 1] = [0.1, 0.3, 0.2]  # one in the second
    right = accuracy(tf.constant(logits), tf.constant(LABELS))
    np.testing.assert_allclose(right, [9 / 12, 11 / 12])


@pytest.mark.parametrize("labels", [np.int32, np.int64])
def test_accuracy_takes_flat_queries_and_labels_of_any_integer_width(labels):
    flat = tf.constant(scores().reshape(2, 12, 3))
    grouped = accuracy(tf.constant(scores()), tf.constant(LABELS))
    again = accuracy(flat, tf.constant(LABELS.reshape(2, 12).astype(labels)))
    np.testing.assert_array_equal(again, grouped)


def test_encoder_penalty_is_the_mean_squared_move_of_each_task():
    rng = np.random.default_rng(0)
    adapted, start = rng.normal(size=[2, 4, 3, 2, 5])  # 2 x [B, N, K, Z]
    penalty = encoder_penalty(tf.constant(adapted), tf.constant(start))
    for task in range(4):
        expected = ((adapted[task] - start[task]) ** 2).sum() / (3 * 2 * 5)
        np.testing.assert_allclose(penalty[task], expected, rtol=1e-12)


def test_the_encoder_penalty_pulls_the_start_and_never_the_adapted_latents():
    start = tf.constant(np.ones([1, 3, 2, 5]))
    adapted = tf.constant(np.full([1, 3, 2, 5], 4.0))
    with tf.GradientTape() as tape:
        tape.watch([start, adapted])
        penalty = encoder_penalty(adapted, start)
    on_start, on_adapted = tape.gradient(penalty, [start, adapted])
    assert on_adapted is None
    np.testing.assert_allclose(on_start, np.full([1, 3, 2, 5], 2 * (1 - 4) / 30))


@pytest.mark.parametrize("rows", [np.eye(3, 7), 5 * np.eye(4)[::-1]])
def test_orthogonal_rows_of_any_length_cost_nothing(rows):
    np.testing.assert_allclose(orthogonality_penalty(tf.constant(rows)), 0, atol=1e-15)


def test_orthogonality_penalty_equals_a_loop_over_pairs_of_rows():
    kernel = np.random.default_rng(1).normal(size=[4, 6])
    expected = numpy_leo.orthogonality_penalty(kernel)
    np.testing.assert_allclose(orthogonality_penalty(tf.constant(kernel)), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_decoder_row_of_zeros_costs_its_diagonal_and_has_a_finite_gradient(dtype):
    kernel = tf.constant([[3.0, 4, 0], [0, 0, 0], [0, 1, 0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        penalty = orthogonality_penalty(kernel)
    # Cosine 0.8 between rows 0 and 2, twice; a row of zeros is not parallel to itself.
    np.testing.assert_allclose(penalty, (2 * 0.8**2 + 1) / 9, rtol=1e-6)
    gradient = tape.gradient(penalty, kernel).numpy()
    assert np.all(np.isfinite(gradient)) and np.any(gradient)


def test_orthogonality_gradients_equal_finite_differences():
    kernel = np.random.default_rng(2).normal(size=[3, 4])
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        penalty = orthogonality_penalty(variable)
    gradient = tape.gradient(penalty, variable)
    for index in np.ndindex(kernel.shape):
        moved = [kernel.copy(), kernel.copy()]
        moved[0][index] += 1e-6
        moved[1][index] -= 1e-6
        up, down = (orthogonality_penalty(tf.constant(m)) for m in moved)
        np.testing.assert_allclose(gradient[index], (up - down) / 2e-6, atol=1e-8)


def test_orthogonality_refuses_what_is_no_matrix_and_shows_its_shape():
    with pytest.raises(ValueError, match=r"must be \[Z, P\], got shape \(3,\)"):
        orthogonality_penalty(tf.zeros([3]))


def test_l2_is_half_the_sum_of_squares_of_all_kernels():
    kernels = [tf.constant([[1.0, 2.0]]), tf.constant([[3.0], [4.0]])]
    np.testing.assert_allclose(l2_penalty(kernels), (1 + 4 + 9 + 16) / 2)


def test_an_answer_of_nan_is_wrong_whatever_the_label():
    logits = tf.constant([[[np.nan, 0.0, 0.0], [np.nan] * 3, [3.0, 1.0, 2.0]]])
    labels = tf.constant([[0, 0, 0]])
    np.testing.assert_allclose(accuracy(logits, labels), [1 / 3])
