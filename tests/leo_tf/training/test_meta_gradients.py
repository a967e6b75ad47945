"""The outer loss and its gradients: finite or replaced, then clipped.

Shapes: B tasks in the meta-batch.
"""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import B, make_episode, make_leo

from leo_tf.model.learner import adapt_and_score
from leo_tf.training.meta_step import (
    clip_gradients,
    is_finite,
    meta_gradients,
    replace_non_finite,
)


def test_entries_are_clipped_first_then_each_tensor_by_its_own_norm():
    gradients = [tf.constant([3.0, -0.05, 0.05]), tf.constant([[0.01, -0.02]])]
    wide, narrow = clip_gradients(gradients, 0.1, 0.1)
    # [0.1, -0.05, 0.05] has norm sqrt(0.015); the other tensor's is below 0.1.
    expected = np.array([0.1, -0.05, 0.05]) * 0.1 / np.sqrt(0.015)
    np.testing.assert_allclose(wide, expected, rtol=1e-6)
    np.testing.assert_allclose(narrow, [[0.01, -0.02]], rtol=1e-6)


def test_a_threshold_of_zero_switches_its_clipping_off():
    gradients = [tf.constant([3.0, 4.0]), tf.constant([0.3, -0.1])]
    for mine, its in zip(clip_gradients(gradients, 0.0, 0.0), gradients, strict=True):
        np.testing.assert_array_equal(mine, its)
    by_value = clip_gradients(gradients, 0.2, 0.0)
    np.testing.assert_allclose(by_value, [[0.2, 0.2], [0.2, -0.1]], rtol=1e-6)
    by_norm = clip_gradients(gradients, 0.0, 1.0)
    np.testing.assert_allclose(by_norm, [[0.6, 0.8], [0.3, -0.1]], rtol=1e-6)


def test_a_gradient_of_zeros_stays_zero():
    np.testing.assert_array_equal(clip_gradients([tf.zeros([3])], 0.1, 0.1)[0], [0] * 3)


@pytest.mark.parametrize("jit", [False, True])
def test_only_nan_and_infinity_count_as_not_finite_wherever_they_are(jit):
    compiled = tf.function(is_finite, jit_compile=jit)
    # Their sum overflows, although each is finite.
    huge = np.array([[3e38, 3e38], [-3e38, 0]], np.float32)
    assert compiled(tf.constant(3e38), [tf.constant(huge)] * 2)
    for bad in (np.nan, np.inf, -np.inf):
        assert not compiled(tf.constant(bad, tf.float32), [tf.constant(huge)] * 2)
        for tensor in range(2):
            gradients = [huge.copy(), huge.copy()]
            gradients[tensor][1, 0] = bad
            gradients = [tf.constant(gradient) for gradient in gradients]
            assert not compiled(tf.constant(1.0), gradients)


def test_a_step_that_is_not_finite_pulls_the_kernels_and_nothing_else():
    leo = make_leo()
    gradients = [np.nan * v for v in leo.trainable_variables]
    mended = replace_non_finite(tf.constant(False), gradients, leo)
    for gradient, variable in zip(mended, leo.trainable_variables, strict=True):
        expected = 1e-4 * variable.numpy() * ("kernel" in variable.path)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_a_finite_steps_gradients_are_not_touched():
    leo = make_leo()
    gradients = [tf.random.normal(v.shape, dtype=v.dtype) for v in leo.weights]
    mended = replace_non_finite(tf.constant(True), gradients, leo)
    for mine, its in zip(mended, gradients, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_the_outer_loss_is_the_mean_over_tasks():
    leo, episode = make_leo(), make_episode()
    noise = leo.draw_noise(episode, 0, 0)
    twice = tf.nest.map_structure(lambda x: tf.concat([x, x], 0), (episode, noise))
    once, gradients, _ = meta_gradients(leo, episode, noise)
    loss, again, _ = meta_gradients(leo, *twice)
    np.testing.assert_allclose(loss, once, rtol=1e-12)
    for mine, its in zip(again, gradients, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-9, atol=1e-12)


def test_without_penalties_the_outer_loss_is_the_mean_query_cross_entropy():
    leo = make_leo(
        kl_weight=0.0,
        encoder_penalty_weight=0.0,
        l2_penalty_weight=0.0,
        orthogonality_penalty_weight=0.0,
    )
    episode = make_episode()
    noise = leo.draw_noise(episode, 0, 0)
    loss, _, metrics = meta_gradients(leo, episode, noise)
    _, logits = adapt_and_score(leo, episode, training=True, noise=noise)
    shares = tf.nn.softmax(logits).numpy().reshape(B, -1, 3)
    labels = episode.query_labels.numpy().reshape(B, -1)
    of_the_right = np.take_along_axis(shares, labels[..., np.newaxis], axis=-1)
    np.testing.assert_allclose(loss, -np.log(of_the_right).mean(), rtol=1e-10)
    np.testing.assert_allclose(loss, metrics["loss_parts/query"], rtol=1e-12)
