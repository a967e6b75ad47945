"""The inner loop against hand arithmetic and against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.model.inner_loop import gradient_descent

START = np.array([[0.7, -0.4], [1.3, 0.2], [-0.9, 0.5]])  # [B, 2]


def loss(params, step):
    return tf.sin(params) * params**2


def test_three_steps_and_their_losses_equal_hand_arithmetic():
    # loss = 4 * z**2, so z <- z - 0.1 * 8 * z = 0.2 * z: 4, 0.8, 0.16, 0.032.
    adapted, losses = gradient_descent(
        lambda z, step: 4.0 * z**2, tf.constant([4.0], tf.float64), 0.1, 3
    )
    np.testing.assert_allclose(adapted, [0.032], rtol=1e-12)
    # The loss before each step, so none of the last point.
    np.testing.assert_allclose(losses, [[64], [2.56], [0.1024]], rtol=1e-12)


def test_losses_are_summed_over_a_task_not_averaged():
    start = tf.constant([[1.0, 2.0, 3.0]], tf.float64)  # [B, 3]
    adapted, _ = gradient_descent(lambda z, step: z**2, start, 0.25, 1)
    np.testing.assert_allclose(adapted, [[0.5, 1.0, 1.5]], rtol=1e-12)


def test_no_steps_return_the_start_and_no_losses():
    start = tf.constant(START)
    adapted, losses = gradient_descent(loss, start, 0.1, 0)
    np.testing.assert_array_equal(adapted, START)
    assert losses == []


def test_every_step_is_told_its_number():
    seen = []

    def noted(params, step):
        seen.append(step)
        return (step + 1.0) * params

    adapted, _ = gradient_descent(noted, tf.constant(0.0), 1.0, 3)
    assert seen == [0, 1, 2]
    np.testing.assert_allclose(adapted, -(1 + 2 + 3))


def test_tasks_do_not_influence_each_other():
    together, _ = gradient_descent(loss, tf.constant(START), 0.3, 4)
    for task in range(3):
        alone, _ = gradient_descent(loss, tf.constant(START[task : task + 1]), 0.3, 4)
        np.testing.assert_array_equal(together[task : task + 1], alone)


def numeric_gradient(function, point, eps=1e-6):
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        step = np.zeros_like(point)
        step[index] = eps
        gradient[index] = (function(point + step) - function(point - step)) / (2 * eps)
    return gradient


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_meta_gradients_include_second_order_terms(num_steps):
    def query_loss(start):
        adapted, _ = gradient_descent(loss, tf.constant(start), 0.1, num_steps)
        return tf.reduce_sum(tf.cos(adapted))

    start = tf.constant(START)
    with tf.GradientTape() as tape:
        tape.watch(start)
        adapted, _ = gradient_descent(loss, start, 0.1, num_steps)
        total = tf.reduce_sum(tf.cos(adapted))
    numeric = numeric_gradient(query_loss, START)
    meta_gradient = tape.gradient(total, start)
    np.testing.assert_allclose(meta_gradient, numeric, rtol=1e-7, atol=1e-9)
    first_order = -np.sin(adapted)  # as if the adapted parameters were the start's
    assert np.abs(meta_gradient - first_order).max() > 0.05


def test_every_dimensions_learning_rate_gets_its_own_gradient():
    def query_loss(rates):
        adapted, _ = gradient_descent(loss, tf.constant(START), tf.constant(rates), 3)
        return tf.reduce_sum(tf.cos(adapted))

    rates = tf.Variable([[0.1, 0.3]], dtype=tf.float64)
    with tf.GradientTape() as tape:
        adapted, _ = gradient_descent(loss, tf.constant(START), rates, 3)
        total = tf.reduce_sum(tf.cos(adapted))
    gradient = tape.gradient(total, rates).numpy()
    np.testing.assert_allclose(
        gradient, numeric_gradient(query_loss, rates.numpy()), rtol=1e-7
    )
    assert np.all(np.abs(gradient) > 1e-3)


def test_first_order_steps_are_alike_and_pass_gradients_as_if_they_were_constants():
    start, rates = tf.constant(START), tf.constant([0.1, 0.3], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([start, rates])
        adapted, _ = gradient_descent(loss, start, rates, 3, first_order=True)
        total = tf.reduce_sum(tf.cos(adapted))
    expected, _ = gradient_descent(loss, start, rates, 3)
    np.testing.assert_array_equal(adapted, expected)
    of_start, of_rates = tape.gradient(total, [start, rates])
    np.testing.assert_allclose(of_start, -np.sin(adapted), rtol=1e-12)
    # Each step moves by rate * constant, so a rate's gradient is what it moved by.
    moved = (np.array(START) - adapted) / rates
    np.testing.assert_allclose(
        of_rates, np.sum(np.sin(adapted) * moved, axis=0), rtol=1e-10
    )
