"""MAML and Meta-SGD: their arithmetic, and meta-gradients through the inner loop.

Shapes: B tasks, N way, K shot, Q queries per class, D embedding size.
"""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import B, D, K, N, make_episode

from leo_tf.configs.schema import MethodConfig
from leo_tf.methods.inductive.maml import MAML
from leo_tf.model.learner import adapt_and_score
from leo_tf.training.meta_step import meta_gradients

STEPS, RATE = 3, 1.7


def make(learned_rates=False, **settings) -> MAML:
    """A built learner with a head, and rates, that differ from entry to entry."""
    config = {"adaptation_steps": STEPS, "adaptation_lr_init": RATE, **settings}
    maml = MAML(N, MethodConfig(**config), learned_rates, dtype="float64")
    maml.build([None, N, K, D])
    random = np.random.default_rng(0)
    for variable in maml.trainable_variables:
        variable.assign(variable.numpy() + 0.3 * random.normal(size=variable.shape))
    return maml


def softmax(scores):
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("learned_rates", [False, True], ids=["maml", "meta_sgd"])
def test_the_adapted_head_is_that_of_gradient_descent_written_in_numpy(learned_rates):
    maml, episode = make(learned_rates), make_episode()
    adapted = maml.adapt(episode.support_inputs, episode.support_labels)
    rates = RATE * (maml.inner_lr.numpy() if learned_rates else np.ones([N, D + 1]))
    for task in range(B):
        head = np.concatenate([maml.kernel.numpy(), maml.bias.numpy()], axis=1)
        inputs = episode.support_inputs[task].numpy().reshape([N * K, D])
        inputs = np.concatenate([inputs, np.ones([N * K, 1])], axis=1)
        labels = np.eye(N)[episode.support_labels[task].numpy().ravel()]
        for _ in range(STEPS):  # of the mean of the support losses
            errors = softmax(inputs @ head.T) - labels
            head = head - rates * (errors.T @ inputs) / (N * K)
        np.testing.assert_allclose(adapted.classifier[task], head, rtol=1e-10)


def test_scores_are_inner_products_plus_biases():
    maml, episode = make(), make_episode()
    adapted, logits = adapt_and_score(maml, episode)
    for b, n, q, c in np.ndindex(*logits.shape):
        weights = adapted.classifier[b, c].numpy()
        expected = episode.query_inputs[b, n, q].numpy() @ weights[:-1] + weights[-1]
        np.testing.assert_allclose(logits[b, n, q, c], expected, rtol=1e-10)


def numeric_gradients(maml, episode, step=1e-6):
    """Returns gradients of the outer loss by every entry of every variable."""
    gradients = []
    for variable in maml.trainable_variables:
        values, gradient = variable.numpy(), np.zeros(variable.shape)
        for index in np.ndindex(*values.shape):
            losses = []
            for sign in (1, -1):
                moved = values.copy()
                moved[index] += sign * step
                variable.assign(moved)
                losses.append(float(outer_loss(maml, episode)))
            gradient[index] = (losses[0] - losses[1]) / (2 * step)
        variable.assign(values)
        gradients.append(gradient)
    return gradients


def outer_loss(maml, episode):
    _, logits = adapt_and_score(maml, episode)
    shares = softmax(logits.numpy())
    right = np.take_along_axis(shares, episode.query_labels.numpy()[..., None], -1)
    return -np.log(right).mean()


@pytest.mark.parametrize("learned_rates", [False, True], ids=["maml", "meta_sgd"])
def test_meta_gradients_equal_finite_differences(learned_rates):
    maml, episode = make(learned_rates), make_episode(tasks=2)
    _, gradients, _ = meta_gradients(maml, episode)
    numeric = numeric_gradients(maml, episode)
    assert len(gradients) == len(numeric) == 2 + learned_rates
    for mine, its in zip(gradients, numeric):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-9)
        assert np.abs(its).max() > 1e-3


def test_the_first_order_gradient_of_the_start_is_that_of_the_adapted_head():
    maml, episode = make(first_order=True), make_episode()
    _, (kernel, bias), _ = meta_gradients(maml, episode)
    _, logits = adapt_and_score(maml, episode)
    labels = tf.one_hot(episode.query_labels, N, dtype="float64")
    errors = (softmax(logits.numpy()) - labels.numpy()) / np.prod(logits.shape[:3])
    expected = np.einsum("bnqc,bnqd->cd", errors, episode.query_inputs)
    np.testing.assert_allclose(kernel, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(bias[:, 0], errors.sum((0, 1, 2)), rtol=1e-9, atol=1e-12)


def test_first_order_adapts_alike_and_learns_the_start_and_the_rates_otherwise():
    episode = make_episode()
    second, first = make(True), make(True, first_order=True)
    np.testing.assert_array_equal(
        adapt_and_score(first, episode)[1], adapt_and_score(second, episode)[1]
    )
    gradients = (meta_gradients(maml, episode)[1] for maml in (first, second))
    for name, mine, its in zip(("kernel", "bias", "inner_lr"), *gradients):
        difference = np.abs(mine - its).max() / np.abs(its).max()
        assert difference > 0.01 and np.abs(mine).max() > 0, name


def test_a_new_head_treats_all_classes_alike_and_rates_begin_where_they_should():
    config = MethodConfig(adaptation_steps=1, adaptation_lr_init=RATE)
    episode = make_episode()
    heads = []
    for learned_rates in (False, True):
        maml = MAML(N, config, learned_rates, dtype="float64")
        maml.build([None, N, K, D])
        heads.append(maml.adapt(*episode[:2]).classifier.numpy())
    np.testing.assert_allclose(*heads, rtol=1e-12)
    # One step from zero: the class's mean less the mean of all, over N.
    support = episode.support_inputs.numpy()
    means = support.mean(axis=2) - support.mean(axis=(1, 2))[:, np.newaxis]
    np.testing.assert_allclose(heads[0][..., :D], RATE * means / N, atol=1e-12)


def test_another_way_than_the_heads_is_refused():
    maml, episode = make(), make_episode(way=N + 1)
    with pytest.raises(ValueError, match=f"`way` must be {N}, as trained, got {N + 1}"):
        maml.adapt(episode.support_inputs, episode.support_labels)
    support = tf.reshape(episode.support_inputs[0], [-1, D])
    labels = tf.reshape(episode.support_labels[0], [-1])
    for adapt in (maml.adapt_uneven, tf.function(maml.adapt_uneven)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"for {N} classes"):
            adapt(support, labels, tf.constant(N + 1))


def test_every_example_of_uneven_support_counts_alike():
    maml = make()
    support = make_episode(tasks=1).support_inputs[0]
    support = tf.concat([support[0], support[1, :1], support[2, :1]], axis=0)
    labels = tf.constant([0, 0, 1, 2])
    once = maml.adapt_uneven(support, labels, N).classifier
    twice = maml.adapt_uneven(
        tf.repeat(support, 2, axis=0), tf.repeat(labels, 2), N
    ).classifier
    np.testing.assert_allclose(twice, once, rtol=1e-10)
    doubled = maml.adapt_uneven(
        tf.repeat(support, [1, 1, 2, 1], axis=0), tf.repeat(labels, [1, 1, 2, 1]), N
    ).classifier
    assert np.abs(doubled - once).max() > 1e-3
