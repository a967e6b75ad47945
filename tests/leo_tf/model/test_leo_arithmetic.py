"""Tests LEO's arithmetic against plain NumPy, finite differences and itself.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import numpy as np
import pytest
import tensorflow as tf
from numpy_leo import NumpyTask
from tiny_cases import B, D, F, K, N, U, Z, make_episode, make_leo, task_of

from leo_tf.model import latent
from leo_tf.model.inner_loop import adapt_latents
from leo_tf.model.learner import adapt_and_score, loss_parts
from leo_tf.training.meta_step import meta_gradients

NUMPY_NAMES = {
    "leo/encoder/kernel": "encoder",
    "leo/relation_network/kernel_0": "relation_0",
    "leo/relation_network/kernel_1": "relation_1",
    "leo/relation_network/kernel_2": "relation_2",
    "leo/decoder/kernel": "decoder",
    "leo/inner_lr": "inner_lr",
    "leo/finetuning_lr": "finetuning_lr",
    "leo/log_scale": "log_scale",
    "leo/log_strength": "log_strength",
}
RESIDUALS = ["none", "centroid", "ridge"]


def numpy_tasks(leo, episode, noise=None):
    """Each task of an episode, with LEO's variables and the task's share of noise."""
    variables = {NUMPY_NAMES[v.path]: v.numpy() for v in leo.variables}
    for task in range(len(episode.support_labels)):
        own = noise and tf.nest.map_structure(
            lambda x: x[0].numpy(), task_of(noise, task)
        )
        support = episode.support_inputs[task].numpy()
        labels = episode.support_labels[task].numpy()
        yield NumpyTask(variables, leo.config, support, labels, own)


@pytest.mark.parametrize(
    "steps",
    [(U, F), (0, 2), (2, 0), (0, 0), (U, F, F + 3), (2, 0, 2), (2, 2, 0)],
    ids=lambda steps: "+".join(map(str, steps)),
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_everything_equals_leo_written_in_plain_numpy(residual, steps, training):
    names = "inner_unroll_length", "finetuning_unroll_length", "test_finetuning_steps"
    lengths = dict(zip(names, steps))
    leo, episode = make_leo(residual=residual, **lengths), make_episode()
    noise = leo.draw_noise(episode, 1, 2) if training else None
    adapted, logits = adapt_and_score(leo, episode, training, noise)
    tasks = list(numpy_tasks(leo, episode, noise))
    for b, task in enumerate(tasks):
        classifier = task.adapt()
        np.testing.assert_allclose(adapted.classifier[b], classifier, rtol=1e-9)
        expected = task.logits(classifier, episode.query_inputs[b].numpy())
        np.testing.assert_allclose(logits[b], expected, rtol=1e-9, atol=1e-12)
        assert task.penalties.keys() == adapted.penalties.keys()
        for name, expected in task.penalties.items():
            penalty = np.broadcast_to(adapted.penalties[name], [B])[b]
            np.testing.assert_allclose(penalty, expected, rtol=1e-9, err_msg=name)
    losses = np.mean([task.support_losses for task in tasks], axis=(0, 2, 3))
    moves = [np.linalg.norm(t.adapted - t.start, axis=-1) for t in tasks]
    expected = {
        "support_loss_start": losses[0],
        "support_loss_latent": losses[steps[0]],
        "support_loss_end": losses[-1],
        "support_loss_drop": losses[0] - losses[-1],
        "latent_step": np.mean(moves),
        **{f"support_loss_step_{i:02}": loss for i, loss in enumerate(losses)},
    }
    for name, value in expected.items():
        np.testing.assert_allclose(
            adapted.diagnostics[name], value, rtol=1e-9, atol=1e-15
        )


@pytest.mark.parametrize("residual", RESIDUALS)
def test_gradients_of_all_variables_equal_finite_differences(residual):
    # No encoder penalty: it stops a gradient that finite differences see.
    leo = make_leo(encoder_penalty_weight=0.0, residual=residual)
    episode = make_episode()
    assert len(leo.trainable_variables) == 7 + RESIDUALS.index(residual)
    noise = leo.draw_noise(episode, 1, 2)

    @tf.function
    def outer_loss():
        adapted, logits = adapt_and_score(leo, episode, True, noise)
        parts = loss_parts(adapted, logits, episode.query_labels)
        return tf.add_n(list(parts.values()))

    loss, gradients, _ = meta_gradients(leo, episode, noise)
    np.testing.assert_allclose(loss, outer_loss(), rtol=1e-12)
    rng = np.random.default_rng(0)
    for variable, gradient in zip(leo.trainable_variables, gradients, strict=True):
        before = variable.numpy()
        single = np.zeros_like(before)
        single.ravel()[rng.integers(before.size)] = 1
        for direction in (single, *rng.normal(size=[2, *before.shape])):
            variable.assign(before + 1e-6 * direction)
            up = outer_loss()
            variable.assign(before - 1e-6 * direction)
            slope = (up - outer_loss()) / 2e-6
            variable.assign(before)
            expected = np.sum(gradient * direction)
            np.testing.assert_allclose(
                slope, expected, rtol=1e-6, atol=1e-9, err_msg=variable.path
            )


def test_the_encoder_penalty_adds_only_the_gradient_of_the_latents_start():
    # d penalty / d start = 2 * (start - adapted) / size, carried on by the encoder.
    leo, episode = make_leo(encoder_penalty_weight=0.5), make_episode()
    without = make_leo(encoder_penalty_weight=0.0)
    noise = leo.draw_noise(episode, 1, 2)
    added = [
        mine - its
        for mine, its in zip(
            meta_gradients(leo, episode, noise)[1],
            meta_gradients(without, episode, noise)[1],
        )
    ]
    with tf.GradientTape() as tape:
        posterior = leo.infer_latents(episode.support_inputs, noise)
        start = latent.sample_or_mean(posterior, noise.latents)
        inputs, labels = episode.support_inputs, episode.support_labels
        task = leo.task(inputs, labels, noise)
        adapted, _ = adapt_latents(start, *task, leo.inner_lr, leo.steps[0])
        pull = tf.stop_gradient(0.5 * 2 * (start - adapted) / (B * N * K * Z))
        pulled = tf.reduce_sum(pull * start)
    values = [variable.value for variable in leo.trainable_variables]
    expected = tape.gradient(pulled, values, unconnected_gradients="zero")
    for mine, its in zip(added, expected):
        np.testing.assert_allclose(mine, its, atol=1e-9)
    assert max(np.abs(gradient).max() for gradient in expected) > 1e-4


@pytest.mark.parametrize(
    "length, rates",
    [
        ("inner_unroll_length", "inner_lr"),
        ("finetuning_unroll_length", "finetuning_lr"),
    ],
)
def test_no_steps_mean_what_rates_of_zero_mean(length, rates):
    episode, still = make_episode(), make_leo()
    getattr(still, rates).assign(0 * getattr(still, rates))
    _, expected = adapt_and_score(still, episode)
    _, logits = adapt_and_score(make_leo(**{length: 0}), episode)
    np.testing.assert_allclose(logits, expected, rtol=1e-12)
    assert np.abs(logits - adapt_and_score(make_leo(), episode)[1]).max() > 1e-3


def test_without_any_step_the_classifier_is_decoded_from_the_mean_latents():
    leo = make_leo(inner_unroll_length=0, finetuning_unroll_length=0)
    episode = make_episode()
    parameters = leo.relation_network(leo.encoder(episode.support_inputs))
    weights = leo.decoder(parameters[..., :Z])[..., :D]
    adapted = leo.adapt(episode.support_inputs, episode.support_labels)
    np.testing.assert_allclose(adapted.classifier, weights[:, :, 0], rtol=1e-12)


def test_an_l2_weight_of_zero_trains_without_l2():
    leo, episode = make_leo(l2_penalty_weight=0.0), make_episode()
    noise = leo.draw_noise(episode, 1, 2)
    loss, gradients, metrics = meta_gradients(leo, episode, noise)
    full, l2_gradients, l2_metrics = meta_gradients(make_leo(), episode, noise)
    assert metrics["loss_parts/l2"] == 0
    np.testing.assert_allclose(full - loss, l2_metrics["loss_parts/l2"])
    for variable, mine, its in zip(leo.trainable_variables, gradients, l2_gradients):
        is_kernel = "kernel" in variable.path
        expected = mine + 0.03 * variable.numpy() * is_kernel
        np.testing.assert_allclose(its, expected, atol=1e-12)


def test_training_samples_k_different_latents_of_a_class():
    leo, episode = make_leo(), make_episode()
    noise = leo.draw_noise(episode, 1, 2)
    posterior = leo.infer_latents(episode.support_inputs, noise)
    np.testing.assert_array_equal(posterior.loc[:, :, 0], posterior.loc[:, :, 1])
    start = latent.sample_or_mean(posterior, noise.latents)
    spread = posterior.scale[:, :, 0] > latent.STDDEV_FLOOR
    apart = tf.abs(start[:, :, 0] - start[:, :, 1])
    assert np.all(apart[spread] > 1e-6) and 0.2 < np.mean(spread) < 0.8


def test_each_of_the_k_latents_is_decoded_with_noise_of_its_own():
    leo, episode = make_leo(), make_episode()
    noise = leo.draw_noise(episode, 1, 2).weights[0]
    latents = tf.random.stateless_normal([B, N, K, Z], [1, 2], dtype=tf.float64)
    decoder = leo.decoder.halves()
    both = leo.decode_classifier(latents, decoder, noise)
    each = [
        leo.decode_classifier(latents[:, :, k : k + 1], decoder, noise[:, :, k : k + 1])
        for k in range(K)
    ]
    assert np.all(np.any(np.abs(each[0] - each[1]) > 0.01, axis=-1))
    np.testing.assert_allclose(both, np.mean(each, axis=0), rtol=1e-12, atol=1e-14)


def test_way_shot_and_queries_may_differ_from_those_it_was_built_for():
    leo = make_leo()
    for sizes in ({"way": 5, "shot": 1, "num_query": 3}, {"way": 2, "shot": 4}):
        episode = make_episode(tasks=2, **sizes)
        adapted, _ = adapt_and_score(leo, episode)
        for mine, task in zip(adapted.classifier, numpy_tasks(leo, episode)):
            np.testing.assert_allclose(mine, task.adapt(), rtol=1e-9)


def test_float32_agrees_with_float64():
    def run(dtype):
        leo, episode = make_leo(dtype), make_episode(dtype=dtype)
        for mine, its in zip(leo.trainable_variables, make_leo().trainable_variables):
            mine.assign(its.numpy())
        noise = leo.draw_noise(episode, 1, 2)
        exact = make_leo().draw_noise(make_episode(), 1, 2)
        noise = tf.nest.map_structure(
            lambda x, e: x if x.dtype == tf.uint32 else tf.cast(e, x.dtype),
            noise,
            exact,
        )
        loss, gradients, _ = meta_gradients(leo, episode, noise)
        assert all(gradient.dtype == dtype for gradient in gradients)
        return [adapt_and_score(leo, episode)[1], loss, *gradients]

    for single, double in zip(run("float32"), run("float64"), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4)
