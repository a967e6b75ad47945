"""Averaging predictions over draws of z and w."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import make_episode, task_of, training_classes

from leo_tf.configs.schema import Config, ModelConfig
from leo_tf.errors import FlagError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.posterior import Draws, average
from leo_tf.methods import registry as methods
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model import noise
from leo_tf.model.leo import LEO

Z = 5
STEPS = {"inner_unroll_length": 1, "finetuning_unroll_length": 1}


@pytest.fixture(autouse=True, scope="module")
def eagerly():
    """A graph takes longer than the few episodes that go through it."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def leo():
    # A high rate: were anything dropped, everything would differ.
    config = ModelConfig(num_latents=Z, dropout_rate=0.9, **STEPS)
    leo = LEO(config, dtype="float64")
    leo.build([None, None, None, 7])
    return leo


@pytest.fixture(scope="module")
def episode():
    return make_episode(dtype="float64")


def scores(leo, episodes, count, seed=0):
    return evaluate({"leo": leo}, episodes, calibrated=True, draws=Draws(count, seed))[
        "leo"
    ]


def by_hand(leo, episode, count, seed):
    """[B] nll and accuracies of the mean of softmaxes, draw by draw."""
    shape, shares = episode.support_inputs.shape, 0
    for number in range(count):
        drawn = noise.draw(
            ModelConfig(num_latents=Z, dropout_rate=0.0, **STEPS),
            *(shape, episode.query_inputs.shape),
            **{"seed": seed, "step": -1 - number, "dtype": "float64"},
        )
        adapted = leo.adapt(
            episode.support_inputs, episode.support_labels, training=True, noise=drawn
        )
        logits = leo.logits(adapted.classifier, episode.query_inputs).numpy()
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        shares = shares + exponentials / exponentials.sum(-1, keepdims=True) / count
    labels = episode.query_labels.numpy()
    right = np.take_along_axis(shares, labels[..., np.newaxis], -1)
    hits = shares.argmax(-1) == labels
    return -np.log(right[..., 0]).mean((1, 2)), hits.mean((1, 2))


def test_probabilities_are_averaged_over_draws_without_dropout(leo, episode):
    found = scores(leo, [episode], count=4, seed=3)
    nll, accuracy = by_hand(leo, episode, count=4, seed=3)
    np.testing.assert_allclose(found.nll, nll, rtol=1e-9)
    np.testing.assert_allclose(found.accuracy, accuracy, rtol=1e-9)


def test_draws_follow_from_the_seed_and_differ_from_means_and_each_other(leo, episode):
    found = [scores(leo, [episode], *draws).nll for draws in ((1, 0), (1, 1), (2, 0))]
    np.testing.assert_array_equal(found[0], scores(leo, [episode], 1, 0).nll)
    means = evaluate({"leo": leo}, [episode], calibrated=True)["leo"].nll
    found.append(means)
    for i in range(4):
        assert all(np.all(found[i] != found[j]) for j in range(i))


def test_an_episode_is_scored_the_same_in_any_batch(leo, episode):
    whole = scores(leo, [episode], count=3)
    parts = [task_of(episode, i) for i in range(2)]
    np.testing.assert_allclose(scores(leo, parts, 3).nll, whole.nll[:2], rtol=1e-9)


def test_no_draw_of_a_test_is_one_of_training(leo, episode):
    shape = episode.support_inputs.shape
    tested = {leo.draw_posterior(shape, 0, n).latents.numpy().tobytes() for n in (0, 1)}
    trained = {
        leo.draw_noise(episode, 0, step).latents.numpy().tobytes() for step in (0, 1, 2)
    }
    assert len(tested) == 2 and not tested & trained


def test_methods_beside_that_draw_nothing_are_scored_as_ever(leo, episode):
    both = {"leo": leo, "centroid": NearestCentroid()}
    drawn = evaluate(both, [episode], calibrated=True, draws=Draws(2, 0))["centroid"]
    plain = evaluate(both, [episode], calibrated=True)["centroid"]
    np.testing.assert_array_equal(drawn.nll, plain.nll)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_says_whether_it_draws_and_is_refused_if_not(name):
    chosen = dict.fromkeys(methods.METHODS[name].chosen, 1.0)
    config = Config().replace(method=name, num_latents=Z, **chosen)
    classes = training_classes(7) if methods.METHODS[name].knows_classes else None
    learner = methods.build(config, 7, classes)
    has_posterior = getattr(learner, "has_posterior", False)
    assert has_posterior == methods.METHODS[name].draws
    if methods.METHODS[name].draws:
        methods.check(config.replace(test_samples=3))
        return
    with pytest.raises(FlagError, match=r"--test_samples: .*generator") as caught:
        methods.check(config.replace(test_samples=3))
    assert name in caught.value.received


def test_an_average_is_the_logarithm_of_probabilities(leo, episode):
    def answer(number):
        drawn = leo.draw_posterior(episode.support_inputs.shape, 0, number)
        adapted = leo.adapt(
            episode.support_inputs, episode.support_labels, training=True, noise=drawn
        )
        return adapted, leo.logits(adapted.classifier, episode.query_inputs)

    adapted, log_shares = average(answer, 3)
    np.testing.assert_allclose(np.exp(log_shares).sum(axis=-1), 1.0, rtol=1e-12)
    each = [answer(number)[0].penalties["kl"] for number in range(3)]
    np.testing.assert_allclose(adapted.penalties["kl"], np.mean(each, axis=0))
