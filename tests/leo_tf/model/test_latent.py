"""The distributions of z and w against their formulas.

Shapes: P parameters, S draws.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.model.latent import (
    kl_to_standard_normal,
    sample_or_mean,
    share_at_floor,
    split_normal,
)

MEANS = np.array([0.3, -1.2, 2.0, 0.0])
RAWS = np.array([0.7, 0.1, -0.2, -3.0])


def normal(offset=0.0, dtype=np.float64):
    return split_normal(np.concatenate([MEANS, RAWS]).astype(dtype), offset)


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_the_second_half_gives_stddevs_by_the_releases_formula(offset):
    expected = [max(math.exp(raw) - (1 - offset), 1e-10) for raw in RAWS]
    np.testing.assert_allclose(normal(offset).scale, expected, rtol=1e-12)
    np.testing.assert_array_equal(normal(offset).loc, MEANS)


def test_halves_are_split_along_the_last_axis():
    parameters = np.arange(12.0).reshape(3, 4) / 10
    split = split_normal(parameters)
    np.testing.assert_array_equal(split.loc, parameters[:, :2])
    np.testing.assert_allclose(split.scale, np.exp(parameters[:, 2:]) - 1)


@pytest.mark.parametrize("offset", [0.05, 0.5])
def test_the_offset_is_the_stddev_at_zero(offset):
    scale = split_normal(tf.zeros([6], tf.float64), offset).scale
    np.testing.assert_allclose(scale, [offset] * 3, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_stddev_is_below_the_floor(dtype):
    scale = normal(dtype=dtype).scale
    np.testing.assert_array_equal(scale[2:], np.array([1e-10] * 2, dtype))


def test_a_sample_is_the_mean_plus_the_noise_in_stddevs():
    noise = np.array([1.0, -2.0, 0.5, 3.0])
    expected = MEANS + noise * np.maximum(np.exp(RAWS) - 0.8, 1e-10)
    np.testing.assert_allclose(sample_or_mean(normal(0.2), noise), expected)


def test_without_noise_the_sample_is_the_mean():
    np.testing.assert_array_equal(sample_or_mean(normal(), None), MEANS)


def test_samples_pass_gradients_to_mean_and_stddev():
    noise = np.array([1.5, -2.0])
    parameters = tf.constant([0.3, -1.2, 0.4, -0.7], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        sample = sample_or_mean(split_normal(parameters), noise)
    # d/dmean = 1; d/draw = noise * exp(raw), and none below the floor.
    expected = [1, 1, 1.5 * math.exp(0.4), 0]
    np.testing.assert_allclose(tape.gradient(sample, parameters), expected, rtol=1e-12)


def test_the_kl_averages_to_the_closed_form():
    noise = np.random.default_rng(0).normal(size=[100_000, 4])  # [S, P]
    drawn = kl_to_standard_normal(normal(0.3), noise).numpy()
    scale = normal(0.3).scale.numpy()
    closed = -np.log(scale) + (scale**2 + MEANS**2 - 1) / 2
    error = drawn.std(axis=0) / math.sqrt(len(noise))
    assert np.all(np.abs(drawn.mean(axis=0) - closed) < 4 * error)
    # So close that a swapped sign could not pass.
    assert np.all(error < 0.02 * np.abs(closed))


def test_the_kl_of_a_draw_is_the_log_ratio_of_the_densities():
    noise = np.array([1.0, -2.0, 0.5, 3.0])
    scale = normal(0.3).scale.numpy()
    z = MEANS + scale * noise
    q = np.exp(-(((z - MEANS) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
    p = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    kl = kl_to_standard_normal(normal(0.3), noise)
    np.testing.assert_allclose(kl[:2], np.log(q / p)[:2], rtol=1e-12)


def test_the_kl_of_a_standard_normal_is_zero():
    standard = split_normal(tf.constant([0.0, math.log(2)], tf.float64))
    kl = kl_to_standard_normal(standard, np.linspace(-3, 3, 7)[:, np.newaxis])
    np.testing.assert_allclose(kl, np.zeros([7, 1]), atol=1e-14)


def test_at_the_floor_the_float32_kl_equals_the_float64_kl():
    noise = np.random.default_rng(0).normal(size=[500, 4])
    single = kl_to_standard_normal(
        normal(dtype=np.float32), tf.constant(noise, tf.float32)
    )
    double = kl_to_standard_normal(normal(), noise)
    np.testing.assert_allclose(single[:, 2:], double[:, 2:], rtol=1e-5)


def test_share_at_floor_counts_the_collapsed_entries():
    assert float(share_at_floor(normal())) == 0.5
    assert float(share_at_floor(normal(dtype=np.float32))) == 0.5
    assert float(share_at_floor(normal(offset=0.9))) == 0.25
