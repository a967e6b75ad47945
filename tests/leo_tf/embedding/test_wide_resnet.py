"""Promises of wide residual networks: the published shape, and the paper's layer."""

import numpy as np
import pytest

from leo_tf.embedding.wide_resnet import (
    features_of,
    multiplications,
    shape_of,
    wide_resnet,
)


@pytest.fixture(scope="module")
def published():
    return wide_resnet(28, 10, side=80, num_classes=64)


def test_names_say_depth_and_width_and_others_are_none():
    assert shape_of("wrn_28_10") == (28, 10) and shape_of("wrn_10_2") == (10, 2)
    for name in (
        "wrn_11_2",
        "wrn_4_2",
        "wrn_10_0",
        "wrn_10_2x",
        "resnet",
        "wrn_1000_1",
    ):
        assert shape_of(name) is None


def test_28_10_has_the_36_5_million_weights_of_its_authors(published):
    # Table 5 of arXiv:1605.07146.
    assert 36.45e6 < published.count_params() < 36.55e6


def test_features_are_640_numbers_of_layer_21(published):
    features = features_of(published)
    layers = [n.name for n in features.layers if "conv" in n.name or n.name == "stem"]
    assert len(layers) == 21
    assert features.output_shape == (None, 640)


def test_each_group_halves_the_side_but_the_first(published):
    sides = [
        published.get_layer(f"group{group}_block4_sum").output.shape[1:]
        for group in (1, 2, 3)
    ]
    assert sides == [(40, 40, 160), (20, 20, 320), (10, 10, 640)]


def test_features_of_a_network_of_one_block_a_group_are_what_its_logits_are_made_of():
    model = wide_resnet(10, 1, side=8, num_classes=3)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    kernel, bias = model.get_layer("logits").get_weights()
    features = features_of(model)(pictures.astype("float32"), training=False)
    logits = model(pictures.astype("float32"), training=False)
    np.testing.assert_allclose(features @ kernel + bias, logits, rtol=1e-5, atol=1e-5)
    assert features.numpy().min() >= 0 and features.numpy().std() > 0


def test_the_penalty_is_the_weight_times_the_sum_of_squares_of_all_kernels():
    model = wide_resnet(10, 1, side=8, num_classes=3, l2_penalty_weight=0.5)
    kernels = [w for w in model.trainable_variables if w.path.endswith("kernel")]
    expected = 0.5 * sum(np.square(kernel.numpy()).sum() for kernel in kernels)
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-5)


def test_multiplications_are_those_of_its_convolutions(published):
    small = wide_resnet(16, 1, side=21, num_classes=3)
    for model, shape in ((published, (28, 10, 80)), (small, (16, 1, 21))):
        counted = 0
        for layer in model.layers:
            if hasattr(layer, "kernel_size"):
                _, height, across, _ = layer.output.shape
                counted += height * across * int(np.prod(layer.kernel.shape))
        assert counted == multiplications(*shape)
