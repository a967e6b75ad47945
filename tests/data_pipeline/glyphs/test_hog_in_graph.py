"""Features that a model computes itself are those that it was trained on."""

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.glyphs.hog import hog
from leo_tf.data_pipeline.glyphs.hog_in_graph import hog_in_graph
from leo_tf.embedding.backbones import backbone_named


def drawn(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_histograms_of_gradients_are_those_of_numpy():
    pictures = drawn(20, 32, 32)
    pictures[0], pictures[1], pictures[2] = 0, 255, np.arange(32) * 8
    pictures[3] = np.eye(32) * 255
    expected = hog(pictures)
    np.testing.assert_allclose(
        hog_in_graph(tf.constant(pictures)), expected, atol=1e-12
    )


def test_colours_are_as_grey_in_a_graph_as_outside():
    backbone, pictures = backbone_named("hog"), drawn(20, 32, 32, 3)
    np.testing.assert_allclose(
        backbone.in_graph(tf.constant(pictures)), backbone.embed(pictures), atol=1e-12
    )
    grey = np.repeat(drawn(2, 32, 32)[..., np.newaxis], 3, axis=-1)
    np.testing.assert_array_equal(backbone.embed(grey), hog(grey[..., 0]))
