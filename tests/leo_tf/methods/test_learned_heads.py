"""The prototypical network and R2-D2: against their papers' formulas in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import D, make_episode

from leo_tf.configs.schema import Config
from leo_tf.methods.inductive.linear import LinearRegression, ridge
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import build
from leo_tf.model.learner import adapt_and_score


@pytest.fixture(scope="module")
def episode():
    return make_episode(dtype="float64")


def make(method):
    return build(Config().replace(method=method, dtype="float64"), D)


def scores(learner, episode) -> np.ndarray:
    """[B, N, Q, N], less what all classes have."""
    logits = adapt_and_score(learner, episode)[1].numpy()
    return logits - logits.mean(axis=-1, keepdims=True)


def test_a_prototypical_network_begins_as_nearest_centroid(episode):
    found = scores(make("protonet"), episode)
    centroid = NearestCentroid("euclidean", scale=10.0)
    np.testing.assert_allclose(found, scores(centroid, episode), atol=1e-12)


def test_its_scores_are_minus_squared_distances_after_the_map(episode):
    learner, random = make("protonet"), np.random.default_rng(0)
    kernel = random.normal(size=(D, D))
    learner.kernel.assign(kernel)
    learner.scale.assign(3.0)
    means = episode.support_inputs.numpy().mean(axis=2) @ kernel  # [B, N, D]
    queries = episode.query_inputs.numpy() @ kernel  # [B, N, Q, D]
    apart = queries[:, :, :, np.newaxis] - means[:, np.newaxis, np.newaxis]
    expected = -3.0 * (apart**2).sum(axis=-1)
    expected -= expected.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(scores(learner, episode), expected, atol=1e-10)


def test_r2d2_is_ridge_regression_of_the_strength_and_scale_it_learned(episode):
    learner = make("r2d2")
    first = scores(LinearRegression(ridge, 1.0, scale=10.0), episode)
    np.testing.assert_allclose(scores(learner, episode), first, atol=1e-12)
    learner.log_strength.assign(np.log(0.3))
    learner.log_scale.assign(np.log(5.0))
    expected = scores(LinearRegression(ridge, 0.3, scale=5.0), episode)
    np.testing.assert_allclose(scores(learner, episode), expected, atol=1e-12)


def test_the_gradient_of_r2d2s_strength_passes_through_the_regression(episode):
    learner = make("r2d2")

    def loss(strength):
        learner.log_strength.assign(strength)
        with tf.GradientTape() as tape:
            logits = adapt_and_score(learner, episode)[1]
            value = tf.reduce_sum(tf.nn.softmax(logits)[..., 0] ** 2)
        variables = learner.trainable_variables
        return float(value), [float(g) for g in tape.gradient(value, variables)]

    step = 1e-5
    by_difference = (loss(step)[0] - loss(-step)[0]) / (2 * step)
    found = loss(0.0)[1][0]
    assert found == pytest.approx(by_difference, rel=1e-6) and abs(found) > 1e-3
