"""LEO as a learner: what it promises a user, whatever it computes.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import B, D, K, N, Q, Z, make_episode, make_leo, task_of

from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model.layers import Decoder
from leo_tf.model.learner import adapt_and_score
from leo_tf.model.leo import LEO

PATHS = {
    "leo/encoder/kernel": [D, Z],
    "leo/relation_network/kernel_0": [2 * Z, 2 * Z],
    "leo/relation_network/kernel_1": [2 * Z, 2 * Z],
    "leo/relation_network/kernel_2": [2 * Z, 2 * Z],
    "leo/decoder/kernel": [Z, 2 * D],
    "leo/inner_lr": [1, 1, Z],
    "leo/finetuning_lr": [1, 1, D],
}


def test_evaluation_ignores_noise_and_is_the_same_in_a_graph():
    leo, episode = make_leo(), make_episode()
    _, logits = adapt_and_score(leo, episode)
    noise = leo.draw_noise(episode, 1, 2)
    np.testing.assert_array_equal(adapt_and_score(leo, episode, noise=noise)[1], logits)
    graph = tf.function(lambda: adapt_and_score(leo, episode)[1])()
    np.testing.assert_allclose(graph, logits, rtol=1e-12)


def test_training_without_noise_is_refused():
    leo, episode = make_leo(), make_episode()
    with pytest.raises(ValueError, match="`noise` must be given when training"):
        leo.adapt(episode.support_inputs, episode.support_labels, training=True)
    with pytest.raises(ValueError, match="`noise` must be given when training"):
        leo.logits(np.zeros([B, N, D]), episode.query_inputs, training=True)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_batch_of_tasks_equals_its_tasks_one_by_one(training):
    leo, episode = make_leo(), make_episode()
    noise = leo.draw_noise(episode, 1, 2) if training else None
    adapted, logits = adapt_and_score(leo, episode, training, noise)
    for task in range(B):
        own = task_of((episode, noise), task)
        alone, its_logits = adapt_and_score(leo, own[0], training, own[1])
        np.testing.assert_allclose(logits[task], its_logits[0], rtol=1e-10, atol=1e-13)
        for name, penalty in alone.penalties.items():
            together = np.broadcast_to(adapted.penalties[name], [B])[task]
            np.testing.assert_allclose(together, np.ravel(penalty)[0], rtol=1e-10)


def test_reordered_classes_get_reordered_logits():
    leo, episode, order = make_leo(), make_episode(), [2, 0, 1]
    support = tf.gather(episode.support_inputs, order, axis=1)
    _, logits = adapt_and_score(leo, episode)
    _, again = adapt_and_score(leo, episode._replace(support_inputs=support))
    np.testing.assert_allclose(again, logits.numpy()[..., order], rtol=1e-10)


def test_a_query_is_scored_alone_and_its_label_is_never_looked_at():
    leo, episode, other = make_leo(), make_episode(), make_episode(seed=1)
    queries = episode.query_inputs.numpy()
    queries[:, :, 1:] = other.query_inputs.numpy()[:, :, 1:]
    changed = episode._replace(
        query_inputs=queries, query_labels=0 * episode.query_labels
    )
    adapted, logits = adapt_and_score(leo, episode)
    again, its_logits = adapt_and_score(leo, changed)
    np.testing.assert_array_equal(again.classifier, adapted.classifier)
    np.testing.assert_allclose(its_logits[:, :, 0], logits[:, :, 0], rtol=1e-12)
    assert np.all(np.any(np.abs(its_logits - logits) > 1e-6, axis=-1)[:, :, 1:])


def test_flat_queries_get_the_logits_of_grouped_ones():
    leo, episode = make_leo(), make_episode()
    adapted, logits = adapt_and_score(leo, episode)
    flat = leo.logits(adapted.classifier, tf.reshape(episode.query_inputs, [B, -1, D]))
    np.testing.assert_allclose(tf.reshape(flat, logits.shape), logits, rtol=1e-12)


def test_calling_an_unbuilt_leo_builds_it_and_scores_the_queries():
    built, episode = make_leo(), make_episode()
    leo = LEO(built.config, dtype="float64")
    inputs = episode.support_inputs, episode.support_labels, episode.query_inputs
    leo(*inputs)
    for mine, its in zip(leo.trainable_variables, built.trainable_variables):
        mine.assign(its)
    np.testing.assert_allclose(
        leo(*inputs), adapt_and_score(built, episode)[1], rtol=1e-12
    )


def test_variables_have_the_same_names_in_every_leo():
    for leo in (make_leo(), make_leo()):
        paths = {v.path: list(v.shape) for v in leo.trainable_variables}
        assert paths == PATHS and len(leo.weights) == 7
    called = LEO(make_leo().config)
    called(*make_episode(dtype="float32")[:3])
    assert {v.path for v in called.weights} == set(PATHS)


def test_seeds_decide_the_initial_kernels_and_no_two_are_alike():
    def initial(seed):
        leo = LEO(make_leo().config, seed)
        leo.build([None, N, K, D])
        return [kernel.numpy() for kernel in leo.kernels]

    kernels, again = initial(3), initial(3)
    for mine, its in zip(kernels, again, strict=True):
        np.testing.assert_array_equal(mine, its)
    entries = np.concatenate([np.ravel(k) for s in range(4) for k in initial(s)])
    assert len(np.unique(entries)) > 0.999 * len(entries)


def test_learning_rates_begin_where_the_configuration_says():
    config = dataclasses.replace(
        make_leo().config, inner_lr_init=0.25, finetuning_lr_init=0.5
    )
    leo = LEO(config)
    leo.build([None, N, K, D])
    np.testing.assert_array_equal(leo.inner_lr, np.full([1, 1, Z], 0.25))
    np.testing.assert_array_equal(leo.finetuning_lr, np.full([1, 1, D], 0.5))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", ["centroid", "ridge"])
def test_training_starts_from_the_closed_form(residual, training):
    config = dataclasses.replace(
        make_leo().config, residual=residual, finetuning_unroll_length=0
    )
    leo, episode = LEO(config, dtype="float64"), make_episode()
    leo.build([None, N, K, D])
    noise = leo.draw_noise(episode, 1, 2)
    if training:  # but for its draws of weights, on which the start depends
        noise = noise._replace(weights=[tf.zeros_like(w) for w in noise.weights])
    adapted, logits = adapt_and_score(leo, episode, training, noise)
    if residual == "centroid":
        closed = NearestCentroid(scale=10.0)
        expected = adapt_and_score(closed, episode)[0].classifier
    else:
        support = tf.reshape(episode.support_inputs, [B, N * K, D]).numpy()
        targets = np.eye(N)[np.repeat(np.arange(N), K)]
        gram = support.transpose(0, 2, 1) @ support + np.eye(D)
        solved = np.linalg.solve(gram, support.transpose(0, 2, 1) @ targets)
        expected = 10.0 * solved.transpose(0, 2, 1)
    close = {"rtol": 1e-7, "atol": 1e-12}  # Keras makes the first scale a float32
    np.testing.assert_allclose(adapted.classifier, expected, **close)
    if not training:
        exact = np.einsum("bnqd,bcd->bnqc", episode.query_inputs, expected)
        np.testing.assert_allclose(logits, exact, **close)


def test_without_a_residual_nothing_is_added_and_the_decoder_starts_as_ever():
    plain, names = make_leo(), set(PATHS)
    assert {v.path for v in plain.variables} == names
    decoder = Decoder(D, seed=4, zero_means=True)
    decoder.build([None, None, None, Z])
    means, raw = np.split(decoder.kernel.numpy(), 2, axis=1)
    usual = Decoder(D, seed=4)
    usual.build([None, None, None, Z])
    assert not means.any() and np.abs(usual.kernel.numpy()[:, :D]).min() > 0
    np.testing.assert_array_equal(raw, usual.kernel.numpy()[:, D:])


def test_a_leo_made_of_its_configuration_is_the_same_leo():
    leo = make_leo(seed=3, kl_weight=0.25)
    again = LEO.from_config(leo.get_config())
    assert again.get_config() == leo.get_config()
    assert again.config == leo.config and again.seed == 3
    again.build([None, N, K, D])
    for mine, its in zip(leo.kernels, again.kernels, strict=True):
        np.testing.assert_array_equal(mine, its)
        assert its.dtype == "float64"


def test_draws_fit_the_episode_and_leave_out_masks_without_dropout():
    episode = make_episode(num_query=Q + 1)
    noise = make_leo(dropout_rate=0.0).draw_noise(episode, 0, 0)
    assert noise.encoder_mask is None and set(noise.support_masks) == {None}
    again = make_leo().draw_noise(episode, 0, 0)
    np.testing.assert_array_equal(noise.latents, again.latents)
    assert again.query_mask.shape == [B, N, Q + 1, D]
