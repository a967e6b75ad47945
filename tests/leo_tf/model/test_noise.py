"""The draws of a meta-step: pure, independent, and distributed as they should be.

Bounds are 5 standard errors or more, and the draws are fixed by their seeds: a test
that passes once always passes.

Shapes: S steps, E numbers a step draws; B, N, K, Q, D, Z, U, F as in `noise.py`.
"""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import ModelConfig
from leo_tf.model import noise as noise_lib
from leo_tf.model.noise import dropout, no_noise

B, N, K, Q, D, Z, U, F = 4, 3, 2, 4, 7, 5, 2, 1
RATE = 0.3
STEPS = 400
SLOW = pytest.mark.slow


def draw(seed, step, dtype=tf.float64, dropout_rate=RATE, normals=True):
    shapes = [B, N, K, D], [B, N, Q, D]
    sizes = {"inner_unroll_length": U, "finetuning_unroll_length": F}
    config = ModelConfig(
        num_latents=Z, **sizes, dropout_rate=dropout_rate, deterministic=not normals
    )
    return noise_lib.draw(config, *shapes, seed=seed, step=step, dtype=dtype)


traced_draw = tf.function(draw)


def flat(noise) -> tuple[np.ndarray, np.ndarray]:
    """All the normals of a `Noise`, and all its masks."""
    normals = [noise.latents, *noise.weights]
    masks = [noise.encoder_mask, *noise.support_masks, noise.query_mask]
    return tuple(np.concatenate([np.ravel(x) for x in xs]) for xs in (normals, masks))


@functools.cache
def many(seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Normals and masks of many steps, each [S, E]."""
    key = tf.constant(seed, tf.int64)
    steps = (traced_draw(key, step) for step in tf.range(STEPS, dtype=tf.int64))
    normals, masks = zip(*(flat(noise) for noise in steps))
    return np.stack(normals), np.stack(masks)


@tf.function(jit_compile=True, autograph=False)
def _words(key):
    return noise_lib._words(key, [16, 64])


def words_of(keys) -> np.ndarray:
    """[C, 16, 64] words of keys [C, 2], as the draws make them."""
    return np.stack([_words(key) for key in tf.unstack(tf.convert_to_tensor(keys))])


@functools.cache
def many_words() -> np.ndarray:
    """[S, 4 * 1024] uint32: the words behind four draws of many steps."""
    keys = [noise_lib._keys(0, step, 4) for step in range(STEPS)]
    return words_of(tf.concat(keys, axis=0)).reshape(STEPS, -1)


def powers(power) -> np.ndarray:
    """[S, E] powers of all that many steps draw, with mean 0 and variance 1."""
    normals, masks = many()
    raised = [normals**power]
    if power == 1:  # the square of a mask is the mask
        raised.append(masks.astype(np.float64))
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


def test_normals_and_masks_do_not_depend_on_whether_the_others_are_drawn():
    both = draw(3, 8)
    without = draw(3, 8, dropout_rate=0.0)
    assert without.encoder_mask is None and without.query_mask is None
    assert without.support_masks == (None,) * (U + F + 1)
    for mine, its in zip(without.weights, both.weights, strict=True):
        np.testing.assert_array_equal(mine, its)
    masks_only = draw(3, 8, normals=False)
    assert masks_only.latents is None and masks_only.weights == (None,) * (U + 1)
    for mine, its in zip(masks_only.support_masks, both.support_masks, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("seed, step", [(3, 9), (4, 8), (8, 3), (2**40, 8)])
def test_another_seed_or_step_shares_no_number(seed, step):
    mine, its = flat(draw(3, 8))[0], flat(draw(seed, step))[0]
    assert len(np.intersect1d(mine, its)) <= 1  # 2**23 values: one may meet
    mine, its = flat(draw(3, 8))[1], flat(draw(seed, step))[1]
    agree = (1 - RATE) ** 2 + RATE**2
    assert abs(np.mean(mine == its) - agree) < 5 * 0.5 / np.sqrt(len(mine))


def test_no_two_sites_of_a_step_share_their_draws():
    noise = draw(3, 8)
    for sites in ([*noise.weights], [noise.encoder_mask, *noise.support_masks]):
        for i, site in enumerate(sites):
            for other in sites[:i]:
                assert np.mean(site == other) < 0.75


def test_words_are_those_of_the_hash_written_out():
    key = np.array([0x9E3779B9, 0x7F4A7C15], np.uint32)
    words = words_of(key[np.newaxis]).ravel()
    for number, word in enumerate(words.tolist()):
        expected = number ^ int(key[0])
        expected = (expected ^ expected >> 17) * 0xED5AD4BB % 2**32
        expected = (expected ^ expected >> 11) * 0xAC4C1B51 % 2**32
        expected = (expected + int(key[1])) % 2**32
        expected = (expected ^ expected >> 15) * 0x31848BAB % 2**32
        assert word == expected ^ expected >> 14


@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=SLOW)])
def test_no_key_comes_back_over_thousands_of_steps(count):
    steps = tf.data.Dataset.range(count)
    keys = steps.map(lambda step: noise_lib._keys(7, step, 19)).batch(1000)
    keys = np.concatenate([*keys.as_numpy_iterator()])
    whole = keys[..., 0].astype(np.uint64) << np.uint64(32) | keys[..., 1]
    assert len(np.unique(whole)) == whole.size


def test_within_a_draw_no_word_comes_twice():
    for words in many_words().reshape(-1, 1024):
        assert len(np.unique(words)) == 1024  # a bijection, whatever the key


def test_no_run_of_words_comes_back_under_another_key():
    # Hashes of two rounds fail here: 32 bits of their 64 are all that tells runs apart.
    keys = np.random.default_rng(0).integers(0, 2**32, [1024, 2], np.uint32)
    words = words_of(keys).reshape(-1, 1024).astype(np.uint64)
    pairs = words[:, :-1] << np.uint64(32) | words[:, 1:]  # at every offset
    assert len(np.unique(pairs)) == pairs.size


def test_flipping_any_bit_of_a_number_or_its_key_flips_every_bit_half_of_the_time():
    key = np.random.default_rng(0).integers(0, 2**32, [64, 2], np.uint32)
    before = words_of(key).reshape(64, -1)
    for bit in range(10):  # of the number: there are 1,024
        order = np.arange(1024) ^ (1 << bit)
        changed = bit_shares(before ^ before[:, order])
        assert np.abs(changed - 0.5).max() < 0.02, bit
    for bit in range(32):
        flipped = key ^ np.array([1 << bit, 0], np.uint32)
        changed = bit_shares(before ^ words_of(flipped).reshape(64, -1))
        assert np.abs(changed - 0.5).max() < 0.02, bit


def bit_shares(words) -> np.ndarray:
    return np.array([np.mean(words >> np.uint32(i) & np.uint32(1)) for i in range(32)])


def test_normals_have_the_moments_of_a_standard_normal():
    drawn = many()[0].ravel()
    # E[x**p] for p = 1..6, and its variance E[x**2p] - E[x**p]**2.
    moments, squares = [0, 1, 0, 3, 0, 15], [1, 3, 15, 105, 945, 10395]
    for power, (moment, square) in enumerate(zip(moments, squares), start=1):
        error = np.sqrt((square - moment**2) / len(drawn))
        assert abs(np.mean(drawn**power) - moment) < 5 * error, power


def test_each_of_the_32_bits_is_fair():
    words = many_words()
    error = 0.5 / np.sqrt(words.size)
    assert np.abs(bit_shares(words) - 0.5).max() < 5 * error


def test_words_are_uniform_over_their_range_and_from_one_to_the_next():
    words = many_words() / 2**32
    counts = np.histogram(words, 256)[0]
    check_even(counts)
    pairs = np.histogram2d(words[:, :-1].ravel(), words[:, 1:].ravel(), 32)[0]
    check_even(pairs)
    rows = np.histogram2d(words[:-1].ravel(), words[1:].ravel(), 32)[0]  # steps
    check_even(rows)


def check_even(counts):
    """Chi-squared of counts against equal ones, within 5 standard deviations."""
    counts = np.ravel(counts)
    squared = np.sum((counts - counts.mean()) ** 2) / counts.mean()
    freedom = len(counts) - 1
    assert abs(squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_normals_follow_the_normal_distribution_all_over():
    drawn = np.sort(many()[0].ravel())
    expected = 0.5 * (1 + np.vectorize(math.erf)(drawn / math.sqrt(2)))
    empirical = (np.arange(len(drawn)) + 0.5) / len(drawn)
    # Kolmogorov's statistic: beyond 2.2 once in 10,000 draws.
    assert np.abs(empirical - expected).max() * np.sqrt(len(drawn)) < 2.2


def test_the_smallest_and_the_largest_word_make_finite_normals():
    words = tf.constant([0, 2**32 - 1, 2**31, 2**31 - 1], tf.uint32)
    for dtype in (tf.float32, tf.float64):
        low, high, above, below = noise_lib._normal(words, dtype).numpy()
        np.testing.assert_allclose([low, high], [-5.2, 5.2], atol=0.1)
        assert low == -high and above == -below and 0 < above < 1e-6


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
    mask = np.concatenate([flat(draw(0, s, dropout_rate=rate))[1] for s in range(40)])
    inputs = np.full(len(mask), 2.0)
    out = dropout(tf.constant(inputs), tf.constant(mask), rate).numpy()
    dropped = np.mean(out == 0)
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / len(mask))
    np.testing.assert_allclose(out[out != 0], 2 / (1 - rate), rtol=1e-12)
    error = 2 * np.sqrt(rate / (1 - rate) / len(mask))
    assert abs(out.mean() - 2) < 5 * error


def test_a_higher_rate_drops_what_a_lower_one_drops_and_more():
    low, high = (flat(draw(0, 0, dropout_rate=rate))[1] for rate in (0.3, 0.6))
    assert np.all(high <= low) and high.sum() < low.sum()


def test_dropout_passes_gradients_of_the_kept():
    inputs = tf.constant([1.0, 2, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = dropout(inputs, tf.constant([False, False, True, True]), 0.5)
    np.testing.assert_array_equal(out, [0, 0, 6, 8])
    np.testing.assert_array_equal(tape.gradient(out, inputs), [0, 0, 2, 2])


def test_without_a_mask_inputs_stay_as_they_are():
    inputs = tf.constant([[1.0, 2.0]])
    assert dropout(inputs, None, 0.5) is inputs


def test_a_rate_just_below_one_drops_nearly_all():
    # Such rates once wrapped round to dropping nothing.
    assert not np.any(flat(draw(0, 0, dropout_rate=1 - 1e-12))[1])


def test_no_noise_has_none_for_every_decode_and_every_evaluation():
    noise = no_noise(U, F)
    assert noise == (None, (None,) * (U + 1), None, (None,) * (U + F + 1), None)


def test_keys_come_from_streams_of_philox_that_the_sampler_never_uses():
    seeds, steps = [0, 1, 2, 3, 2**31, 2**62], [*range(40), 10**6, 2**40]
    keys, streams = set(), set()
    for seed in seeds:
        for step in steps:
            keys.add(tuple(noise_lib._keys(seed, step, 1).numpy()[0]))
            # What Philox is run with: the sampler runs it with a bare seed.
            pair = tf.constant([-1 - seed, step], tf.int64)
            philox = tf.raw_ops.StatelessRandomGetKeyCounter(seed=pair)
            streams.add(int(philox.key[0]))
    assert len(keys) == len(streams) == len(seeds) * len(steps)
    assert not streams & set(seeds)
