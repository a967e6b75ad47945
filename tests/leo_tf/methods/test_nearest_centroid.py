"""Nearest centroid against a loop.

Shapes: B tasks, N way, K shot, Q queries per class, D embedding size.
"""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import make_episode

from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model.learner import adapt_and_score


def test_scores_are_cosines_with_the_class_means():
    episode = make_episode()
    _, logits = adapt_and_score(NearestCentroid(), episode)
    support, queries = episode.support_inputs.numpy(), episode.query_inputs.numpy()
    for b, n, q, c in np.ndindex(*logits.shape):
        mean, query = support[b, c].mean(axis=0), queries[b, n, q]
        cosine = mean @ query / np.linalg.norm(mean) / np.linalg.norm(query)
        np.testing.assert_allclose(logits[b, n, q, c], cosine, rtol=1e-10)


def test_reordered_classes_get_reordered_scores():
    episode, order = make_episode(), [2, 0, 1]
    support = tf.gather(episode.support_inputs, order, axis=1)
    _, logits = adapt_and_score(NearestCentroid(), episode)
    _, again = adapt_and_score(
        NearestCentroid(), episode._replace(support_inputs=support)
    )
    np.testing.assert_allclose(again, logits.numpy()[..., order], rtol=1e-12)


def test_flat_queries_get_the_scores_of_grouped_ones():
    episode, learner = make_episode(), NearestCentroid()
    adapted, logits = adapt_and_score(learner, episode)
    flat = tf.reshape(episode.query_inputs, [len(logits), -1, 7])
    expected = tf.reshape(logits, [len(logits), -1, 3])
    again = learner.logits(adapted.classifier, flat)
    np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_training_changes_nothing_as_nothing_is_learned_or_drawn():
    episode, learner = make_episode(), NearestCentroid()
    noise = learner.draw_noise(episode, seed=0, step=0)
    adapted, logits = adapt_and_score(learner, episode, training=True, noise=noise)
    np.testing.assert_array_equal(logits, adapt_and_score(learner, episode)[1])
    assert adapted.penalties == {} and list(learner.trainable_variables) == []


def test_a_class_whose_examples_cancel_scores_zero_and_not_nan():
    episode = make_episode(tasks=1)
    support = episode.support_inputs.numpy()
    support[0, 1] = [support[0, 1, 0], -support[0, 1, 0]]
    _, logits = adapt_and_score(
        NearestCentroid(), episode._replace(support_inputs=support)
    )
    np.testing.assert_array_equal(logits[..., 1], np.zeros([1, 3, 4]))


def test_euclidean_answers_are_those_of_the_squared_distances():
    episode = make_episode()
    learner = NearestCentroid("euclidean", scale=3.0)
    _, logits = adapt_and_score(learner, episode)
    support, queries = episode.support_inputs.numpy(), episode.query_inputs.numpy()
    distances = queries[:, :, :, np.newaxis] - support.mean(axis=2)[:, None, None]
    distances = np.sum(distances**2, axis=-1)  # [B, N, Q, N]
    expected = tf.nn.log_softmax(-3.0 * distances)
    np.testing.assert_allclose(tf.nn.log_softmax(logits), expected, rtol=1e-9)
    cosine = adapt_and_score(NearestCentroid(), episode)[1]
    assert np.any(np.argmax(cosine, axis=-1) != np.argmax(logits, axis=-1))


def test_a_scale_multiplies_the_scores():
    episode = make_episode()
    for metric in ("cosine", "euclidean"):
        _, logits = adapt_and_score(NearestCentroid(metric), episode)
        _, scaled = adapt_and_score(NearestCentroid(metric, scale=2.5), episode)
        np.testing.assert_allclose(scaled, 2.5 * logits.numpy(), rtol=1e-12)


def test_uneven_classes_have_the_means_of_their_own_examples():
    inputs = make_episode(tasks=1, shot=4).support_inputs[0].numpy()
    support = np.concatenate([inputs[2, :1], inputs[0, :4], inputs[1, :2]])
    labels = np.array([2, 0, 0, 0, 0, 1, 1])
    means = np.stack([inputs[n, :k].mean(axis=0) for n, k in enumerate((4, 2, 1))])
    for metric in ("cosine", "euclidean"):
        learner = NearestCentroid(metric)
        classifier = learner.adapt_uneven(support, labels, 3).classifier
        # An episode of one example a class: the mean itself.
        expected = learner.adapt(means[np.newaxis, :, np.newaxis], None).classifier[0]
        np.testing.assert_allclose(classifier, expected, rtol=1e-10)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="`metric` must be cosine or euclidean"):
        NearestCentroid("manhattan")
