import numpy as np
import pytest
import tensorflow as tf
from numpy_leo import relation_network
from tiny_cases import D, F, U, Z, make_episode, make_leo

from leo_tf.configs.schema import MethodConfig
from leo_tf.errors import InputError
from leo_tf.methods.inductive.linear import LinearRegression, logistic, ridge
from leo_tf.methods.inductive.maml import MAML
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model import uneven_support
from leo_tf.model.learner import uneven_adapt

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
SHAPES = [(2, 1), (3, 2), (5, 4), (4, 7)]  # way, shot
UNEVEN = [1, 0, 1, 2, 1, 2]  # classes of 1, 3 and 2 examples, not in order


def flat(episode):
    """Support [S, D], labels [S] and way of an episode of one task."""
    way = episode.support_labels.shape[1]
    support = tf.reshape(episode.support_inputs, [-1, D])
    return support, tf.reshape(episode.support_labels, [-1]), tf.constant(way)


def uneven_task(dtype="float64", labels=UNEVEN):
    examples = make_episode(3, tasks=1, way=1, shot=len(labels), dtype=dtype)
    return examples.support_inputs[0, 0], tf.constant(labels), tf.constant(3)


@pytest.mark.parametrize("pairs_at_once", [2**17, 6])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way,shot", SHAPES)
def test_equal_shots_give_the_classifier_of_training(
    way, shot, dtype, pairs_at_once, monkeypatch
):
    monkeypatch.setattr(uneven_support, "_PAIRS_AT_ONCE", pairs_at_once)
    leo = make_leo(dtype)
    episode = make_episode(1, tasks=1, way=way, shot=shot, dtype=dtype)
    expected = leo.adapt(episode.support_inputs, episode.support_labels).classifier
    given = leo.adapt_uneven(*flat(episode)).classifier
    np.testing.assert_allclose(given, expected[0], atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_unroll_length": 0, "finetuning_unroll_length": 0},
        {"inner_unroll_length": 0},
        {"finetuning_unroll_length": 0},
        {"test_finetuning_steps": 9},
        {"random_prior": True},
        {"deterministic": True},
        {"residual": "centroid"},
        {"residual": "ridge"},
    ],
)
def test_equal_shots_give_what_every_ablation_gives_in_training(settings):
    leo, episode = make_leo(**settings), make_episode(1, tasks=1, way=4, shot=3)
    expected = leo.adapt(episode.support_inputs, episode.support_labels).classifier
    given = leo.adapt_uneven(*flat(episode)).classifier
    np.testing.assert_allclose(given, expected[0], atol=1e-12)


def naive_uneven_leo(leo, support, labels, way):
    """Latents before and after, and classifier: with a latent for each example.

    The loss of an example weighs 1 / (examples of its class). Row n of the latents is
    that of the first example of class n.
    """
    sums = np.zeros([way, 2 * Z])
    kernels = [kernel.numpy() for kernel in leo.relation_network.kernels]
    codes = support @ leo.encoder.kernel.numpy()
    for code, label in zip(codes, labels):
        for other in codes:
            pair = np.stack([code, other])[:, np.newaxis]  # as two classes of one
            # Of the pairs of these two, only (code, other) counts here.
            both = relation_network(pair, kernels)[0] * 2
            sums[label] += both - relation_network(pair[:1], kernels)[0]
    shots = np.bincount(labels)
    means = sums / (len(support) * shots[:, np.newaxis])
    start = latents = means[labels, :Z]  # [S, Z]: class n has shots[n] equal ones
    decoder = leo.decoder.kernel.numpy()[:, :D]

    def gradient(weights):  # [S, D] weights, one for each latent -> [S, D]
        classifier = np.stack([weights[labels == n].mean(axis=0) for n in range(way)])
        total = np.zeros_like(classifier)
        for example, label in zip(support, labels):
            scores = np.exp(classifier @ example)
            share = scores / scores.sum()
            share[label] -= 1
            total += share[:, np.newaxis] * example / shots[label]
        return total[labels]

    for _ in range(U):
        step = gradient(latents @ decoder) @ decoder.T
        latents = latents - leo.inner_lr.numpy()[0] * step
    weights = latents @ decoder
    for _ in range(F):
        weights = weights - leo.finetuning_lr.numpy()[0] * gradient(weights)
    firsts = [list(labels).index(n) for n in range(way)]
    classifier = np.stack([weights[labels == n].mean(axis=0) for n in range(way)])
    return start[firsts], latents[firsts], classifier


def test_every_class_weighs_the_same_however_many_examples_it_has():
    leo, (support, labels, way) = make_leo(), uneven_task()
    expected = naive_uneven_leo(leo, support.numpy(), labels.numpy(), 3)
    given = leo.adapt_uneven(support, labels, way)
    np.testing.assert_allclose(given.latents_before, expected[0], atol=1e-12)
    np.testing.assert_allclose(given.latents_after, expected[1], atol=1e-12)
    np.testing.assert_allclose(given.classifier, expected[2], atol=1e-12)
    assert np.abs(given.latents_after - given.latents_before).max() > 0.03


def methods():
    head = MAML(3, MethodConfig(adaptation_lr_init=0.5))
    head.build([None, 3, 2, D])
    head.kernel.assign(np.random.default_rng(0).normal(size=[3, D]))
    return {
        "leo": make_leo("float32"),
        "maml": head,
        "centroid": NearestCentroid(),
        "centroid_euclidean": NearestCentroid("euclidean"),
        "ridge": LinearRegression(ridge, 0.5),
        "logistic": LinearRegression(logistic, 0.5),
    }


@pytest.mark.parametrize("name", methods())
def test_one_trace_of_every_method_serves_every_support(name):
    learner = methods()[name]
    adapt = uneven_adapt(learner)
    traced = tf.function(
        adapt,
        input_signature=[
            tf.TensorSpec([None, D]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
        autograph=False,
    )
    for labels in (UNEVEN, [2, 1, 0], [0, 1, 2, 2, 2, 2, 2, 2, 2]):
        task = uneven_task("float32", labels)
        for given, expected in zip(traced(*task), adapt(*task)):
            np.testing.assert_allclose(given, expected, atol=1e-5)
    assert traced.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ["leo", "centroid", "ridge", "logistic"])
def test_the_order_of_examples_does_not_matter_and_classes_may_change_numbers(name):
    adapt = uneven_adapt(methods()[name])
    support, labels, way = uneven_task("float32")
    expected = adapt(support, labels, way).classifier
    shuffled, renamed = [4, 2, 5, 0, 3, 1], tf.constant([2, 0, 1])
    given = adapt(tf.gather(support, shuffled), tf.gather(labels, shuffled), way)
    np.testing.assert_allclose(given.classifier, expected, atol=1e-5)
    given = adapt(support, tf.gather(renamed, labels), way)
    np.testing.assert_allclose(
        tf.gather(given.classifier, renamed), expected, atol=1e-5
    )


def test_a_method_that_cannot_adapt_to_uneven_support_is_refused_by_name():
    with pytest.raises(InputError, match=r"^method: expected .*, received dict"):
        uneven_adapt({})
