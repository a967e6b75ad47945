"""The draws of a meta-step: pure, independent, and distributed as they should be.

Bounds are 5 standard errors or more, and the draws are fixed by their seeds: a test
that passes once always passes.

Shapes: S steps, E numbers a step draws; B, N, K, Q, D, Z, U, F as in `noise.py`.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from leo_tf import noise as noise_lib
from leo_tf.noise import dropout, no_noise

B, N, K, Q, D, Z, U, F = 4, 3, 2, 4, 7, 5, 2, 1
STEPS = 400


def draw(seed, step, masks=True, dtype=tf.float64):
    shapes = [B, N, K, D], [B, N, Q, D]
    return noise_lib.draw(
        *shapes, Z, U, F, seed=seed, step=step, dtype=dtype, masks=masks
    )


traced_draw = tf.function(draw)


def flat(noise) -> tuple[np.ndarray, np.ndarray]:
    """All the normals of a `Noise`, and all its bits."""
    normals = [noise.latents, *noise.weights]
    bits = [noise.encoder_bits, *noise.support_bits, noise.query_bits]
    return tuple(np.concatenate([np.ravel(x) for x in xs]) for xs in (normals, bits))


@functools.cache
def many(seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Normals and bits of many steps, each [S, E]."""
    key = tf.constant(seed, tf.int64)
    steps = (traced_draw(key, step) for step in tf.range(STEPS, dtype=tf.int64))
    normals, bits = zip(*(flat(noise) for noise in steps))
    return np.stack(normals), np.stack(bits)


def powers(power) -> np.ndarray:
    """[S, E] powers of all that many steps draw, with mean 0 and variance 1."""
    normals, bits = many()
    raised = normals**power, (bits / 2**32 - 0.5) ** power
    return np.concatenate([(x - x.mean()) / x.std() for x in raised], axis=1)


def test_every_site_gets_a_draw_of_its_shape():
    noise = draw(0, 0)
    shapes = [x.shape.as_list() for x in tf.nest.flatten(noise)]
    support = [B, N, K, D]
    normals = [[B, N, K, Z], *[support] * (U + 1)]
    assert shapes == [*normals, support, *[support] * (U + F + 1), [B, N, Q, D]]


def test_the_same_seed_and_step_give_the_same_draws_in_any_order():
    first = flat(draw(3, 8))
    flat(draw(4, 9))
    for mine, again in zip(first, flat(draw(3, 8))):
        np.testing.assert_array_equal(mine, again)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_eager_and_graph_draw_the_same(dtype):
    graph = traced_draw(tf.constant(3, tf.int64), tf.constant(8, tf.int64), dtype=dtype)
    for mine, its in zip(flat(draw(3, 8, dtype=dtype)), flat(graph)):
        np.testing.assert_array_equal(mine, its)


def test_normals_do_not_depend_on_whether_masks_are_drawn():
    without = draw(3, 8, masks=False)
    assert without.encoder_bits is None and without.query_bits is None
    assert without.support_bits == (None,) * (U + F + 1)
    for mine, its in zip(without.weights, draw(3, 8).weights, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("seed, step", [(3, 9), (4, 8), (8, 3), (2**40, 8)])
def test_another_seed_or_step_shares_no_number(seed, step):
    for mine, its in zip(flat(draw(3, 8)), flat(draw(seed, step))):
        assert len(np.intersect1d(mine, its)) <= 1  # 2**32 words: one may meet


def test_no_two_sites_of_a_step_share_a_block_of_draws():
    normals, bits = flat(draw(3, 8))
    assert len(np.unique(normals)) == len(normals)
    pairs = np.stack([bits[:-1], bits[1:]], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_no_block_of_draws_comes_back_over_many_steps_and_seeds():
    normals, bits = (np.stack(x) for x in zip(many(0), many(1)))  # [2, S, E]
    assert len(np.unique(normals)) == normals.size
    words = bits.astype(np.uint64)
    pairs = words[..., :-1] << np.uint64(32) | words[..., 1:]  # at every offset
    assert len(np.unique(pairs)) == pairs.size


def test_normals_have_the_moments_of_a_standard_normal():
    drawn = many()[0].ravel()
    # E[x**p] for p = 1..6, and its variance E[x**2p] - E[x**p]**2.
    moments, squares = [0, 1, 0, 3, 0, 15], [1, 3, 15, 105, 945, 10395]
    for power, (moment, square) in enumerate(zip(moments, squares), start=1):
        error = np.sqrt((square - moment**2) / len(drawn))
        assert abs(np.mean(drawn**power) - moment) < 5 * error, power


def test_each_of_the_32_bits_is_fair():
    bits = many()[1].ravel()
    shares = [np.mean((bits >> np.uint32(i)) & np.uint32(1)) for i in range(32)]
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / np.sqrt(len(bits))


@pytest.mark.parametrize("power", [1, 2])
def test_any_two_numbers_of_a_step_are_uncorrelated(power):
    # Columns are elements, tasks, evaluations and sites alike; squares tell of equal
    # sizes with any signs.
    check_uncorrelated(powers(power))


@pytest.mark.parametrize("power", [1, 2])
def test_any_two_steps_are_uncorrelated(power):
    check_uncorrelated(powers(power).T)


def check_uncorrelated(samples):
    """Columns of [samples, columns]: no pair stands out, and pairs do not add up."""
    correlations = np.corrcoef(samples, rowvar=False)
    above_diagonal = np.triu_indices(len(correlations), k=1)
    pairs = correlations[above_diagonal] * np.sqrt(len(samples))
    assert np.abs(pairs).max() < 10  # squares of normals have heavy tails
    np.testing.assert_allclose(np.mean(pairs**2), 1, rtol=0.05)
    assert abs(np.mean(pairs)) < 5 / np.sqrt(len(pairs))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.83])
def test_dropout_zeroes_the_rates_share_and_keeps_the_mean(rate):
    bits = many()[1].ravel()
    inputs = np.full(len(bits), 2.0)
    out = dropout(tf.constant(inputs), tf.constant(bits), rate).numpy()
    dropped = np.mean(out == 0)
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / len(bits))
    np.testing.assert_allclose(out[out != 0], 2 / (1 - rate), rtol=1e-12)
    error = 2 * np.sqrt(rate / (1 - rate) / len(bits))
    assert abs(out.mean() - 2) < 5 * error


def test_dropout_drops_the_lowest_bits_and_passes_gradients_of_the_kept():
    bits = tf.constant([0, 2**31 - 1, 2**31, 2**32 - 1], tf.uint32)
    inputs = tf.constant([1.0, 2, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = dropout(inputs, bits, 0.5)
    np.testing.assert_array_equal(out, [0, 0, 6, 8])
    np.testing.assert_array_equal(tape.gradient(out, inputs), [0, 0, 2, 2])


def test_a_rate_of_zero_or_no_bits_leave_inputs_as_they_are():
    inputs = tf.constant(np.random.default_rng(0).normal(size=[3, 4]))
    bits = tf.constant(np.array([[0, 1, 2**31, 2**32 - 1]] * 3, np.uint32))
    np.testing.assert_array_equal(dropout(inputs, bits, 0.0), inputs)
    assert dropout(inputs, None, 0.5) is inputs


def test_a_rate_just_below_one_drops_nearly_all():
    # Such rates once wrapped round to dropping nothing.
    bits = tf.constant([0, 2**32 - 2], tf.uint32)
    out = dropout(tf.constant([1.0, 1.0], tf.float64), bits, 1 - 1e-12)
    np.testing.assert_array_equal(out, [0, 0])


def test_no_noise_has_none_for_every_decode_and_every_evaluation():
    noise = no_noise(U, F)
    assert noise == (None, (None,) * (U + 1), None, (None,) * (U + F + 1), None)


def test_keys_of_noise_are_all_different_and_never_those_of_the_sampler():
    seeds, steps = [0, 1, 2, 3, 2**31, 2**62], [*range(40), 10**6, 2**40]
    keys, streams = set(), set()
    for seed in seeds:
        for step in steps:
            for site in (0, 1):
                key = noise_lib._key(tf.constant(seed, tf.int64), step, site)
                keys.add(tuple(key.numpy()))
                # What Philox is run with: the sampler runs it with a bare seed.
                philox = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
                streams.add(int(philox.key[0]))
    assert len(keys) == len(streams) == len(seeds) * len(steps) * 2
    assert all(first < 0 for first, _ in keys)
    assert not streams & set(seeds)
