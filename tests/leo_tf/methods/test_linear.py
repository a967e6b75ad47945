"""Ridge and logistic regression against scikit-learn, and their uneven support.

Shapes: B tasks, N way, K shot, S support examples, D embedding size.
"""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression, Ridge
from tiny_cases import B, make_episode

from leo_tf.methods.inductive import newton
from leo_tf.methods.inductive.linear import LinearRegression, logistic, ridge
from leo_tf.model.learner import adapt_and_score

WIDE, TALL = {"shot": 2, "size": 11}, {"shot": 9, "size": 7}  # S < D, and S > D
shapes = pytest.mark.parametrize("shape", [WIDE, TALL], ids=["wide", "tall"])
FITS = {"ridge": ridge, "logistic": logistic}
every_fit = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


def tasks_of(episode):
    """(inputs [S, D], labels [S]) of each task, in NumPy."""
    inputs, labels = episode.support_inputs.numpy(), episode.support_labels.numpy()
    return [(x.reshape([-1, x.shape[-1]]), y.ravel()) for x, y in zip(inputs, labels)]


def by_scikit(model):
    """[N, P]"""
    return np.concatenate([model.coef_, model.intercept_[:, np.newaxis]], axis=1)


@shapes
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_ridge_equals_scikit_learns_on_one_hot_targets(shape, strength):
    episode = make_episode(**shape)
    learner = LinearRegression(ridge, strength)
    classifier = learner.adapt(*episode[:2]).classifier
    for task, (inputs, labels) in enumerate(tasks_of(episode)):
        model = Ridge(alpha=strength).fit(inputs, np.eye(3)[labels])
        np.testing.assert_allclose(
            classifier[task], by_scikit(model), rtol=1e-8, atol=1e-10
        )


@shapes
@pytest.mark.parametrize("strength", [0.003, 0.1, 10.0])
def test_logistic_regression_equals_scikit_learns_to_four_digits(shape, strength):
    episode = make_episode(**shape)
    learner = LinearRegression(logistic, strength)
    classifier = learner.adapt(*episode[:2]).classifier
    for task, (inputs, labels) in enumerate(tasks_of(episode)):
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        expected = by_scikit(model.fit(inputs, labels))
        np.testing.assert_allclose(classifier[task], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype, left", [("float64", 1e-9), ("float32", 1e-3)])
def test_at_the_logistic_solution_the_gradient_is_zero_even_where_it_is_far(
    dtype, left
):
    episode = make_episode(shot=9, dtype=dtype)
    strength = 1e-3
    classifier = LinearRegression(logistic, strength).adapt(*episode[:2]).classifier
    for task, (inputs, labels) in enumerate(tasks_of(episode)):
        head = classifier[task].numpy().astype(np.float64)
        assert np.abs(head).max() > 5
        weights, bias = head[:, :-1], head[:, -1]
        shares = np.exp(inputs @ weights.T + bias)
        errors = shares / shares.sum(axis=1, keepdims=True) - np.eye(3)[labels]
        slope = errors.T @ inputs + strength * weights
        assert np.linalg.norm(slope) < left and np.linalg.norm(errors.sum(0)) < left
        assert abs(bias.sum()) < left


def test_a_penalty_so_weak_that_full_newton_steps_diverge_is_solved_too():
    random, labels = np.random.default_rng(0), np.repeat(np.arange(3), 30)
    inputs = random.normal(size=[20, 3, 7])[:, labels]
    inputs += random.normal(size=inputs.shape)  # [B, S, D]
    inputs /= np.linalg.norm(inputs, axis=-1, keepdims=True)
    targets = tf.one_hot(tf.tile(labels[np.newaxis], [20, 1]), 3, dtype="float64")
    strength = 1e-6
    head = tf.function(logistic)(tf.constant(inputs), targets, strength).numpy()
    scores = inputs @ np.swapaxes(head[..., :-1], 1, 2) + head[:, np.newaxis, :, -1]
    errors = tf.nn.softmax(scores) - targets
    slope = tf.matmul(errors, inputs, transpose_a=True) + strength * head[..., :-1]
    assert np.abs(slope).max() < 1e-9 and np.abs(head).max() > 100


def test_rounding_of_thousands_of_examples_does_not_shorten_the_steps(monkeypatch):
    random, labels = np.random.default_rng(0), np.repeat(np.arange(5), 800)
    inputs = random.normal(size=[1, 5, 16])[:, labels]
    inputs += 0.3 * random.normal(size=inputs.shape)  # [1, S, D], nearly separable
    inputs /= np.linalg.norm(inputs, axis=-1, keepdims=True)
    solve, steps = newton.conjugate_gradients, []
    counting = lambda *given: steps.append(1) or solve(*given)  # noqa: E731
    monkeypatch.setattr(newton, "conjugate_gradients", counting)
    targets = tf.one_hot(labels[np.newaxis], 5)
    head = logistic(tf.constant(inputs, tf.float32), targets, 1e-3).numpy()
    assert 5 < len(steps) < 20, "50 is the most there may be"
    exact = logistic(tf.constant(inputs), tf.cast(targets, "float64"), 1e-3)
    # Rounding differs by processor; the largest weights are 6.
    np.testing.assert_allclose(head, exact, atol=2e-2)


@every_fit
def test_a_scale_multiplies_the_scores_and_nothing_else(fit):
    episode = make_episode()
    _, logits = adapt_and_score(LinearRegression(fit, 0.1), episode)
    _, scaled = adapt_and_score(LinearRegression(fit, 0.1, scale=2.5), episode)
    np.testing.assert_allclose(scaled, 2.5 * logits.numpy(), rtol=1e-12)


@every_fit
def test_duplicated_examples_do_not_break_the_solution(fit):
    episode = make_episode()
    support = tf.repeat(episode.support_inputs[:, :, :1], 2, axis=2)
    learner = LinearRegression(fit, 0.1)
    adapted = learner.adapt(support, episode.support_labels)
    alone = LinearRegression(fit, 0.05)  # twice the examples: twice the penalty
    expected = alone.adapt(support[:, :, :1], episode.support_labels[:, :, :1])
    np.testing.assert_allclose(
        adapted.classifier, expected.classifier, rtol=1e-6, atol=1e-8
    )


@every_fit
@pytest.mark.parametrize("shots", [[1, 4, 2], [9, 1, 5]], ids=["wide", "tall"])
def test_uneven_support_is_fitted_example_by_example(fit, shots):
    support = make_episode(tasks=1, shot=9).support_inputs[0].numpy()
    inputs = np.concatenate([rows[:shot] for rows, shot in zip(support, shots)])
    labels = np.repeat(np.arange(3), shots)
    order = np.random.default_rng(0).permutation(len(labels))
    specs = (tf.TensorSpec([None, 7], "float64"), tf.TensorSpec([None], "int64"))
    learner = LinearRegression(fit, 0.1)
    graph = tf.function(learner.adapt_uneven, [*specs, tf.TensorSpec([], "int32")])
    classifier = graph(inputs[order], labels[order], 3).classifier
    if fit is ridge:
        model = Ridge(alpha=0.1).fit(inputs, np.eye(3)[labels])
    else:
        model = LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(inputs, labels)
    np.testing.assert_allclose(classifier, by_scikit(model), rtol=1e-4, atol=1e-5)


@every_fit
def test_xla_compiles_it_to_the_same(fit):
    episode, learner = make_episode(), LinearRegression(fit, 0.1)
    compiled = tf.function(lambda e: adapt_and_score(learner, e)[1], jit_compile=True)
    np.testing.assert_allclose(
        compiled(episode), adapt_and_score(learner, episode)[1], rtol=1e-6, atol=1e-8
    )


@every_fit
def test_a_nan_in_one_task_spoils_that_task_alone_and_ends(fit):
    episode, learner = make_episode(), LinearRegression(fit, 0.1)
    support = episode.support_inputs.numpy()
    support[1, 0, 0, 0] = np.nan
    _, logits = adapt_and_score(learner, episode)
    _, spoiled = adapt_and_score(
        learner, episode._replace(support_inputs=tf.constant(support))
    )
    others = [task for task in range(B) if task != 1]
    assert np.all(np.isnan(spoiled[1]))
    np.testing.assert_allclose(
        spoiled.numpy()[others], logits.numpy()[others], rtol=1e-6, atol=1e-8
    )
