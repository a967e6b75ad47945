"""Encoder, relation network and decoder against nested loops.

Shapes: B tasks, N way, K shot, D embedding size, Z latent size.
"""

import math

import numpy as np
import numpy_leo
import pytest
import tensorflow as tf

from leo_tf.model.layers import Decoder, Encoder, RelationNetwork

LAYERS = {
    "encoder": (Encoder(5, seed=3, name="my_encoder"), 7),
    "relation_network": (RelationNetwork(5, seed=3, name="my_relations"), 5),
    "decoder": (Decoder(7, seed=3, name="my_decoder"), 5),
}


def built(layer, size):
    """A new layer of the same configuration, built for inputs of `size`."""
    again = type(layer).from_config(layer.get_config())
    again.build([None, 3, 2, size])
    return again


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("way, shot", [(2, 1), (5, 1), (3, 4)])
def test_relation_network_equals_nested_loops_over_pairs(way, shot):
    layer = RelationNetwork(3, dtype="float64")
    codes = random(2, way, shot, 3)
    out = layer(codes)
    kernels = [kernel.numpy() for kernel in layer.kernels]
    for task in range(2):
        per_class = numpy_leo.relation_network(codes[task], kernels)
        for k in range(shot):  # every example of a class gets its class's parameters
            np.testing.assert_allclose(out[task, :, k], per_class, rtol=1e-10)


def test_relation_network_works_for_a_number_of_tasks_not_known_in_advance():
    layer = RelationNetwork(3, dtype="float64")
    codes = random(4, 3, 2, 3)
    any_batch = tf.TensorSpec([None, 3, 2, 3], tf.float64)
    traced = tf.function(layer, input_signature=[any_batch])
    np.testing.assert_allclose(traced(codes), layer(codes), rtol=1e-12)


def test_relation_network_does_not_care_which_example_of_a_class_comes_first():
    layer = RelationNetwork(3, dtype="float64")
    codes = random(2, 3, 4, 3)
    swapped = codes[:, :, [2, 0, 3, 1]]
    np.testing.assert_allclose(layer(swapped), layer(codes), rtol=1e-12)


def test_relation_network_follows_its_classes_when_they_are_reordered():
    layer = RelationNetwork(3, dtype="float64")
    codes, order = random(2, 3, 4, 3), [2, 0, 1]
    expected = layer(codes).numpy()[:, order]
    np.testing.assert_allclose(layer(codes[:, order]), expected, rtol=1e-12)


def test_a_class_is_described_in_the_light_of_the_others():
    layer = RelationNetwork(3, dtype="float64")
    codes = random(1, 3, 2, 3)
    other = codes.copy()
    other[:, 2] += 1
    changed = np.abs(layer(codes) - layer(other)).max(axis=(0, 2, 3))
    assert np.all(changed > 1e-3)


# The decoder gives a mean and a raw stddev for each of 7 entries.
@pytest.mark.parametrize(
    "layer, size, out_size",
    [(Encoder(5, dtype="float64"), 7, 5), (Decoder(7, dtype="float64"), 5, 14)],
    ids=["encoder", "decoder"],
)
def test_encoder_and_decoder_are_one_matrix_and_no_bias(layer, size, out_size):
    inputs = random(2, 3, 2, size)
    out = layer(inputs)
    assert len(layer.weights) == 1
    kernel = layer.kernel.numpy()
    for index in np.ndindex(2, 3, 2):
        for column in range(out_size):
            expected = sum(inputs[index] * kernel[:, column])
            np.testing.assert_allclose(out[index][column], expected, rtol=1e-10)
    np.testing.assert_array_equal(layer(0 * inputs), 0 * out)


@pytest.mark.parametrize("layer, size", LAYERS.values(), ids=LAYERS)
def test_a_layer_made_of_its_configuration_is_the_same_layer(layer, size):
    once, again = built(layer, size), built(layer, size)
    assert once.get_config() == again.get_config() == layer.get_config()
    assert again.get_config()["seed"] == 3
    inputs = random(2, 3, 2, size)
    np.testing.assert_array_equal(once(inputs), again(inputs))


@pytest.mark.parametrize("layer, size", LAYERS.values(), ids=LAYERS)
def test_another_seed_gives_other_kernels(layer, size):
    other = type(layer).from_config({**layer.get_config(), "seed": 4})
    other.build([None, 3, 2, size])
    for mine, its in zip(built(layer, size).weights, other.weights, strict=True):
        assert not np.allclose(mine, its)


@pytest.mark.parametrize(
    "layer, size", [(Encoder(50), 70), (RelationNetwork(50), 50), (Decoder(70), 50)]
)
def test_kernels_begin_uniform_in_glorots_range(layer, size):
    layer.build([None, 3, 2, size])
    for kernel in layer.weights:
        bound = math.sqrt(6 / sum(kernel.shape))
        values = np.ravel(kernel.numpy()) / bound
        assert 0.99 < np.abs(values).max() <= 1
        np.testing.assert_allclose(np.std(values), math.sqrt(1 / 3), rtol=0.03)
        assert abs(np.mean(values)) < 5 * math.sqrt(1 / 3 / len(values))


@pytest.mark.parametrize("kind", [Encoder, RelationNetwork, Decoder])
def test_a_size_that_is_not_positive_is_refused_by_name(kind):
    with pytest.raises(ValueError, match=r"`\w+` must be positive, got 0"):
        kind(0)
