"""The registry: what a name stands for, and what validation episodes choose.

Shapes: N way, D embedding size.
"""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import B, D, K, N, make_episode, training_classes

from leo_tf.configs.schema import Config, MethodConfig
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable
from leo_tf.errors import FlagError
from leo_tf.evaluation import validation_tuning as choices
from leo_tf.evaluation.validation_tuning import SCALES
from leo_tf.methods import registry as methods
from leo_tf.methods.inductive.maml import MAML
from leo_tf.methods.registry import METHODS
from leo_tf.model.learner import adapt_and_score
from leo_tf.model.losses import accuracy, cross_entropy
from leo_tf.training.meta_step import meta_gradients

GIVEN = {"ridge_strength": 0.1, "logistic_strength": 0.1, "score_scale": 2.0}
GIVEN |= {"assignment_sharpness": 5.0, "laplacian_weight": 0.7}
ABLATIONS = {  # the settings of LEO that each row of the paper's table 2 stands for
    "leo": {},
    "leo_no_finetuning": {"finetuning_unroll_length": 0},
    "leo_deterministic": {"deterministic": True},
    "leo_random_prior": {"random_prior": True},
    "generator_finetuning": {"inner_unroll_length": 0},
    "generator": {"inner_unroll_length": 0, "finetuning_unroll_length": 0},
}
KERNELS = D * 4 + 3 * 8 * 8 + 4 * 2 * D  # encoder, relation network, decoder at Z = 4
HEAD = N * (D + 1)
SIZES = {  # trained scalars
    "leo": KERNELS + 4 + D,
    "leo_no_finetuning": KERNELS + 4,
    "leo_deterministic": KERNELS + 4 + D,
    "leo_random_prior": 4 * 2 * D + 4 + D,
    "generator_finetuning": KERNELS + D,
    "generator": KERNELS,
    "maml": HEAD,
    "meta_sgd": 2 * HEAD,
    "protonet": D * D + 1,
    "r2d2": 2,
    "simpleshot": 0,
    "lda": 0,
    "ridge": 0,
    "logistic": 0,
    "centroid": 0,
    "centroid_euclidean": 0,
    "distribution_calibration": 0,
    "soft_kmeans": 0,
    "bd_cspn": 0,
    "laplacian_shot": 0,
    "pt_map": 0,
}


def configure(name, **settings) -> Config:
    settings = {"num_latents": 4, "way": N, "dtype": "float64", **settings}
    return Config().replace(method=name, **settings)


def build(name, **settings):
    classes = training_classes() if METHODS[name].knows_classes else None
    return methods.build(configure(name, **{**GIVEN, **settings}), D, classes)


def loss_of(learner, episode) -> float:
    return float(meta_gradients(learner, episode)[0])


def validation(batches=4):
    """Returns a function that returns batches of B episodes, as training makes them."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(6), 20)
    rows = rng.normal(size=[120, D]) + 1.5 * rng.normal(size=[6, D])[labels]
    names = [f"class {n}" for n in range(6)]
    known = EmbeddingTable(rows, labels, names, dtype="float64")
    shape = {"way": N, "shot": K, "num_query": 9, "seed": 0, "split": "val"}
    table = FeatureTable.from_embeddings(known)
    return lambda: EpisodesByRow(table, batch_size=B, num_episodes=B * batches, **shape)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_trains_as_many_scalars_as_it_has(name):
    variables = build(name).trainable_variables
    assert sum(np.prod(v.shape) for v in variables) == SIZES[name]
    assert METHODS[name].is_trained == bool(variables)


@pytest.mark.parametrize("name", ["maml", "meta_sgd"])
def test_the_settings_of_the_adaptation_reach_maml_and_meta_sgd(name):
    settings = {
        "adaptation_steps": 7,
        "adaptation_lr_init": 1.3,
        "first_order": True,
    }
    maml, episode = build(name, **settings), make_episode()
    same = MAML(N, MethodConfig(**settings), name == "meta_sgd", dtype="float64")
    same.build([None, None, None, D])
    (_, mine, _), (_, its, _) = (meta_gradients(m, episode) for m in (maml, same))
    assert loss_of(maml, episode) == loss_of(same, episode)
    np.testing.assert_array_equal(mine[0], its[0])
    for setting in ("adaptation_steps", "adaptation_lr_init"):
        other = build(name, **{k: v for k, v in settings.items() if k != setting})
        assert loss_of(other, episode) != pytest.approx(loss_of(maml, episode), 1e-3)
    second_order = build(name, **{**settings, "first_order": False})
    assert loss_of(second_order, episode) == loss_of(maml, episode)
    theirs = meta_gradients(second_order, episode)[1]
    assert np.abs(theirs[0] - mine[0]).max() > 0.01 * np.abs(mine[0]).max()


SCALED = [name for name, method in METHODS.items() if "score_scale" in method.chosen]


@pytest.mark.parametrize("name", SCALED)
def test_scores_are_multiples_of_the_scale(name):
    assert {"centroid", "ridge", "logistic", "lda"} <= set(SCALED)
    once, twice = (build(name, score_scale=scale) for scale in (1.0, 2.0))
    episode = make_episode()
    scores = adapt_and_score(once, episode)[1].numpy()
    np.testing.assert_allclose(
        adapt_and_score(twice, episode)[1], 2 * scores, rtol=1e-12
    )
    assert np.abs(scores).max() > 0.1


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_paper_s_ablations_are_leo_with_settings_replaced(name):
    leo = build(name, kl_weight=0.3)
    config = configure(name, kl_weight=0.3, **GIVEN)
    assert leo.config == dataclasses.replace(config.model, **ABLATIONS[name])


def test_titles_and_descriptions_tell_the_methods_apart_on_one_line():
    for texts in zip(*((m.title, m.description) for m in METHODS.values())):
        assert len(set(texts)) == len(METHODS)
        assert all(text and "\n" not in text for text in texts)


@pytest.mark.parametrize("name", METHODS)
def test_another_test_way_is_answered_or_refused_with_the_reason(name):
    if not METHODS[name].keeps_way:
        episode = make_episode(way=N + 1)
        _, logits = adapt_and_score(build(name, test_way=N + 1), episode)
        right = accuracy(logits, episode.query_labels)
        assert logits.shape == [B, N + 1, 4, N + 1] and np.all(right >= 0)
        return
    with pytest.raises(FlagError) as caught:
        build(name, test_way=N + 1)
    expected = f"--test_way: expected {N}, as --way, received {N + 1}. "
    assert str(caught.value).startswith(expected + METHODS[name].title)
    build(name, test_way=N, test_shot=7)
    with pytest.raises(FlagError, match="--way: expected one number"):
        build(name, way="2-4")


def test_the_deterministic_leo_draws_masks_only_and_has_no_kl():
    leo, episode = build("leo_deterministic"), make_episode()
    noise = leo.draw_noise(episode, 0, 0)
    assert noise.latents is None and set(noise.weights) == {None}
    full = build("leo").draw_noise(episode, 0, 0)
    np.testing.assert_array_equal(noise.query_mask, full.query_mask)
    adapted, _ = adapt_and_score(leo, episode, training=True, noise=noise)
    assert set(adapted.penalties) == {"l2", "orthogonality", "encoder"}
    assert np.all(adapted.penalties["encoder"] > 0)


def test_without_dropout_the_deterministic_leo_trains_on_what_it_evaluates():
    leo, episode = build("leo_deterministic", dropout_rate=0.0), make_episode()
    noise = leo.draw_noise(episode, 0, 0)
    _, logits = adapt_and_score(leo, episode, training=True, noise=noise)
    np.testing.assert_allclose(logits, adapt_and_score(leo, episode)[1], rtol=1e-12)


def test_the_random_prior_starts_at_the_draws_whatever_the_support_is():
    leo = build("leo_random_prior", inner_unroll_length=0, finetuning_unroll_length=0)
    episode, other = make_episode(), make_episode(seed=1)
    noise = leo.draw_noise(episode, 0, 0)
    mode = {"training": True, "noise": noise}
    classifier = leo.adapt(*episode[:2], **mode).classifier
    np.testing.assert_array_equal(leo.adapt(*other[:2], **mode).classifier, classifier)
    parameters = tf.tensordot(noise.latents, leo.decoder.kernel.value, axes=1)
    mean, raw = parameters[..., :D], parameters[..., D:]
    stddev = np.maximum(np.exp(raw) - (1 - np.sqrt(2 / (N + D))), 1e-10)
    weights = mean + stddev * noise.weights[0]  # [B, N, K, D]
    np.testing.assert_allclose(classifier, np.mean(weights, axis=2), rtol=1e-9)


def test_the_random_prior_is_evaluated_from_its_mean_and_learns_without_encoder():
    leo, episode = build("leo_random_prior"), make_episode()
    np.testing.assert_array_equal(leo.infer_latents(episode[0], None).mean(), 0)
    noise = leo.draw_noise(episode, 0, 0)
    adapted, _ = adapt_and_score(leo, episode, training=True, noise=noise)
    assert set(adapted.penalties) == {"l2", "orthogonality"}
    paths = {v.path for v in leo.trainable_variables}
    assert paths == {"leo/decoder/kernel", "leo/inner_lr", "leo/finetuning_lr"}
    _, gradients, _ = meta_gradients(leo, episode, noise)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["ridge", "logistic", "centroid"])
def test_what_must_be_chosen_is_refused_until_it_is(name):
    for setting in METHODS[name].chosen:
        with pytest.raises(
            FlagError, match=f"^--{setting}: .*validation_tuning.choose"
        ):
            build(name, **{setting: None})


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_the_strength_chosen_is_the_most_accurate_and_the_scale_the_likeliest(
    name, monkeypatch
):
    strengths = (0.001, 0.1, 10.0)
    monkeypatch.setattr(choices, "STRENGTHS", strengths)
    field, episodes = f"{name}_strength", validation(2)
    chosen = choices.choose(configure(name), D, episodes).flat()

    def scores(strength):
        learner = build(name, **{field: strength}, score_scale=1.0)
        for episode in episodes():
            yield adapt_and_score(learner, episode)[1], episode.query_labels

    right = [np.mean([accuracy(*s) for s in scores(t)]) for t in strengths]
    assert chosen[field] == strengths[np.argmax(right)] and len(set(right)) > 1
    answers = list(scores(chosen[field]))
    losses = {
        scale: np.mean([cross_entropy(scale * s, labels) for s, labels in answers])
        for scale in SCALES
    }
    assert chosen["score_scale"] == min(losses, key=losses.get)
    assert SCALES[0] < chosen["score_scale"] < SCALES[-1]


def test_what_is_given_is_kept_and_only_what_is_missing_is_chosen():
    given = configure("ridge", ridge_strength=0.7)
    chosen = choices.choose(given, D, validation(1))
    assert chosen.methods.ridge_strength == 0.7
    assert chosen == given.replace(score_scale=chosen.methods.score_scale)
    assert chosen.methods.logistic_strength is None
    assert choices.choose(chosen, D, pytest.fail) == chosen
    for name in ("leo", "maml"):
        assert choices.choose(configure(name), D, pytest.fail) == configure(name)


def test_a_better_scale_makes_the_centroid_s_answers_likelier_and_no_other():
    episodes = validation()
    chosen = choices.choose(configure("centroid"), D, episodes)
    plain, scaled = build("centroid", score_scale=1.0), methods.build(chosen, D)
    for episode in episodes():
        first, second = (
            adapt_and_score(plain, episode)[1],
            adapt_and_score(scaled, episode)[1],
        )
        np.testing.assert_array_equal(np.argmax(first, -1), np.argmax(second, -1))
    losses = [
        np.mean(
            [
                cross_entropy(adapt_and_score(m, e)[1], e.query_labels)
                for e in episodes()
            ]
        )
        for m in (plain, scaled)
    ]
    assert losses[1] < losses[0] - 0.01


@pytest.mark.parametrize("name", METHODS)
def test_any_name_and_seed_builds_the_same_again(name):
    first, again, other = (build(name, seed=seed) for seed in (1, 1, 2))
    for mine, its in zip(first.trainable_variables, again.trainable_variables):
        assert mine.path == its.path and re.fullmatch(r"\w+/[\w/]+", mine.path)
        np.testing.assert_array_equal(mine, its)
    if name in ABLATIONS:
        assert np.all(first.decoder.kernel.numpy() != other.decoder.kernel.numpy())


def test_there_are_no_draws_to_average_of_what_is_deterministic():
    config = configure("leo").replace(test_samples=3)
    methods.check(config)
    with pytest.raises(FlagError, match=r"--test_samples.*without --deterministic"):
        methods.check(config.replace(deterministic=True))


@pytest.mark.parametrize(
    ("names", "settings", "idle"),
    [
        (["leo"], {"ridge_strength": 3.0, "num_latents": 7}, ["ridge_strength"]),
        (["leo"], {"adaptation_steps": 9, "way": 3}, ["adaptation_steps"]),
        (["leo", "maml"], {"adaptation_steps": 9, "num_latents": 7}, []),
        (["leo"], {"ensemble": "ridge", "ridge_strength": 3.0}, []),
        (
            ["ridge"],
            {"outer_lr": 3.0, "patience": 3, "seed": 4},
            ["outer_lr", "patience"],
        ),
        (["generator"], {"inner_lr_init": 3.0}, ["inner_lr_init"]),
        (["leo"], {"deterministic": True, "random_prior": True}, []),
        (["maml"], {"deterministic": True}, ["deterministic"]),
        (["their:Method"], {"num_latents": 7}, []),
        (["ridge"], {"jit": "on", "meta_batch_size": 3}, ["jit", "meta_batch_size"]),
        (["leo"], {"patience": 3, "train_on_val": True}, ["patience"]),
    ],
)
def test_settings_without_effect_are_told(names, settings, idle):
    assert methods.unused(Config().replace(**settings), settings, names) == idle
