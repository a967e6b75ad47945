"""Tests the promises of every method, one property a test, over the registry.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding size.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import B, D, K, N, make_episode, task_of, training_classes

from leo_tf.configs.schema import GROUPS, Config
from leo_tf.methods import registry as methods
from leo_tf.methods.registry import METHODS as OURS
from leo_tf.methods.registry import method_named
from leo_tf.methods.settings import effective
from leo_tf.model.learner import adapt_and_score, uneven_adapt
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.variables import restore_variables
from leo_tf.training.meta_step import adam, make_meta_step

LEO = {"num_latents": 8, "inner_unroll_length": 1, "finetuning_unroll_length": 1}
LEO |= {"finetuning_lr_init": 0.5, "dropout_rate": 0.1, "l2_penalty_weight": 1e-4}
GRADIENT_HEAD = {"adaptation_steps": 2}
CENTROID = {"score_scale": 2.0}
# A method that is not here fails this suite; so does a name that is no method.
SETTINGS = {
    "leo": LEO,
    "generator": LEO,
    "generator_finetuning": LEO,
    "leo_no_finetuning": LEO,
    "leo_deterministic": LEO,
    "leo_random_prior": LEO,
    "protonet": {},
    "r2d2": {},
    "maml": GRADIENT_HEAD,
    "meta_sgd": GRADIENT_HEAD,
    "ridge": {"ridge_strength": 0.1, "score_scale": 3.0},
    "logistic": {"logistic_strength": 0.1, "score_scale": 1.0},
    "centroid": CENTROID,
    "centroid_euclidean": CENTROID,
    "simpleshot": CENTROID,
    "lda": CENTROID,
    "distribution_calibration": {
        "logistic_strength": 0.1,
        "score_scale": 2.0,
        "calibration_samples": 6,
        "calibration_alpha": 0.3,
    },
    "soft_kmeans": {"assignment_sharpness": 5.0, "score_scale": 2.0},
    "bd_cspn": {"score_scale": 5.0},
    "laplacian_shot": {"laplacian_weight": 0.7, "score_scale": 2.0},
    "pt_map": {"score_scale": 0.5},
}
SKLEARN = "sklearn:sklearn.linear_model.LogisticRegression"
SETTINGS[SKLEARN] = {"sklearn_parameters": '{"tol": 1e-12}', "score_scale": 2.0}
METHODS = {**OURS, SKLEARN: method_named(SKLEARN)}  # one of scikit-learn's for all
STEPS = 100
# They share their code with LEO and the generator.
ABLATIONS = {n for n in METHODS if METHODS[n].family == "leo"} - {"leo", "generator"}


def usually(names, seldom) -> list:
    """Parameters: those in `seldom` are slow."""
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(name, marks=marks[name in seldom]) for name in names]


# What these two leave out of LEO, the generator leaves out as well.
BETWEEN = {"leo_no_finetuning", "generator_finetuning"}
every_method = pytest.mark.parametrize("name", usually(METHODS, BETWEEN))
every_learner = pytest.mark.parametrize(
    "name", usually([n for n in METHODS if not METHODS[n].query_aware], BETWEEN)
)
every_query_aware_method = pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.query_aware]
)
every_trained_method = pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.is_trained]
)


@pytest.fixture
def eagerly():
    """For a step or two: to trace one takes longer."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make(name, dtype="float64", seed=0):
    """An untrained learner; its variables are no longer what they began with.

    Zeros would hide much: MAML's head of zeros looks the same in every order.
    """
    given = {"inner_lr_init": 1.0, **SETTINGS[name]}  # the release's, whatever D
    config = Config().replace(
        method=name, way=N, shot=K, dtype=dtype, seed=seed, **given
    )
    learner = methods.build(config, D, classes_for(name))
    random = np.random.default_rng(seed)
    for variable in learner.trainable_variables:
        noise = 0.2 * random.normal(size=variable.shape)
        variable.assign(variable.numpy() * (1 + noise) + 0.5 * noise)
    return learner


def classes_for(name):
    """Returns the training classes for a method that uses them, else None."""
    return training_classes() if METHODS[name].knows_classes else None


def values_of(learner) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in learner.trainable_variables}


def named(learner) -> dict:
    return {v.path: v.value for v in learner.trainable_variables}


def trained(name, steps):
    """A learner after some meta-steps, and its variables before."""
    learner = make(name)
    clipped = {"gradient_threshold": 0.1, "gradient_norm_threshold": 0.1}
    meta_step = make_meta_step(learner, adam(0.02), **clipped)
    before = values_of(learner)
    for step in range(steps):
        seed, number = tf.constant(0, tf.int64), tf.constant(step, tf.int64)
        metrics = meta_step(separable_episode(step), seed, number)
        assert metrics["non_finite"] == 0
    return learner, before


def separable_episode(seed):
    """Examples close to their class's centre."""
    episode, wide = make_episode(seed), make_episode(seed + 1000, shot=1)
    centres = 8.0 * wide.support_inputs  # [B, N, 1, D]
    inputs = (
        tf.math.l2_normalize(centres + part, axis=-1)
        for part in (episode.support_inputs, episode.query_inputs)
    )
    support, query = inputs
    return episode._replace(support_inputs=support, query_inputs=query)


def test_every_method_is_held_to_these_promises():
    assert set(SETTINGS) == set(METHODS)


@pytest.mark.parametrize("name", usually(METHODS, ABLATIONS))
def test_separable_classes_of_new_tasks_are_learned_far_above_chance(name):
    learner = trained(name, STEPS)[0] if METHODS[name].is_trained else make(name)
    right = []
    for seed in range(100, 105):
        episode = separable_episode(seed)
        _, logits = adapt_and_score(learner, episode)
        right.append(np.argmax(logits, axis=-1) == episode.query_labels)
    assert np.mean(right) > 0.8  # chance is 1 / 3


@every_method
def test_permuted_classes_get_permuted_logits(name):
    """Methods with a row of a head for each class have these permuted, too."""
    learner, episode, order = make(name), make_episode(), [2, 0, 1]
    _, logits = adapt_and_score(learner, episode)
    if METHODS[name].keeps_way:
        for variable in learner.trainable_variables:
            variable.assign(variable.numpy()[order])
    support = tf.gather(episode.support_inputs, order, axis=1)
    _, again = adapt_and_score(learner, episode._replace(support_inputs=support))
    np.testing.assert_allclose(again, logits.numpy()[..., order], rtol=1e-7)


@every_method
def test_a_batch_of_tasks_equals_its_tasks_one_by_one(name):
    learner, episode = make(name), make_episode()
    adapted, logits = adapt_and_score(learner, episode)
    for task in range(B):
        alone, its_logits = adapt_and_score(learner, task_of(episode, task))
        np.testing.assert_allclose(
            adapted.classifier[task], alone.classifier[0], rtol=1e-7, atol=1e-9
        )
        np.testing.assert_allclose(logits[task], its_logits[0], rtol=1e-7, atol=1e-9)


@every_method
def test_a_graph_computes_what_is_computed_eagerly(name):
    learner, episode = make(name), make_episode()
    graph = tf.function(lambda e: adapt_and_score(learner, e)[1], autograph=False)
    np.testing.assert_allclose(
        graph(episode), adapt_and_score(learner, episode)[1], rtol=1e-7, atol=1e-9
    )


@every_method
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_query_labels_cannot_influence_predictions(name, training):
    learner, episode = make(name), make_episode()
    noise = None
    if training and not METHODS[name].query_aware:
        noise = learner.draw_noise(episode, 0, 0)
    relabelled = episode._replace(query_labels=(episode.query_labels + 1) % N)
    _, logits = adapt_and_score(learner, episode, training, noise)
    _, again = adapt_and_score(learner, relabelled, training, noise)
    np.testing.assert_array_equal(again, logits)


@every_method
def test_one_query_influences_the_prediction_of_another_where_that_is_the_idea(name):
    learner, episode, other = make(name), make_episode(), make_episode(seed=1)
    queries = episode.query_inputs.numpy()
    queries[:, :, 1:] = other.query_inputs.numpy()[:, :, 1:]
    _, logits = adapt_and_score(learner, episode)
    _, again = adapt_and_score(learner, episode._replace(query_inputs=queries))
    changes = np.abs(again - logits)
    if METHODS[name].transductive:
        assert np.all(changes[:, :, 0].max(axis=(1, 2)) > 1e-3)
    else:
        np.testing.assert_allclose(again[:, :, 0], logits[:, :, 0], rtol=1e-9)
    assert changes[:, :, 1:].max() > 1e-3


@every_learner
def test_evaluation_draws_nothing(name):
    learner, episode = make(name), make_episode()
    _, logits = adapt_and_score(learner, episode)
    np.testing.assert_array_equal(adapt_and_score(learner, episode)[1], logits)
    noise = learner.draw_noise(episode, 1, 2)
    np.testing.assert_array_equal(
        adapt_and_score(learner, episode, noise=noise)[1], logits
    )


@every_learner
def test_a_training_step_is_a_function_of_its_draws(name):
    learner, episode = make(name), make_episode()
    noises = [learner.draw_noise(episode, 0, step) for step in (0, 0, 1)]
    first, again, other = (
        adapt_and_score(learner, episode, True, n)[1] for n in noises
    )
    np.testing.assert_array_equal(again, first)
    assert (noises[0] is None) == bool(np.all(other == first))


@every_method
def test_a_checkpoint_brings_back_the_predictions_bit_for_bit(name, tmp_path):
    learner, episode = make(name), make_episode()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, named(learner), {})
    other = make(name, seed=1)
    restore_variables(checkpoints.load(1).path, named(other))
    np.testing.assert_array_equal(
        adapt_and_score(other, episode)[1], adapt_and_score(learner, episode)[1]
    )


@every_trained_method
def test_a_meta_step_changes_every_trainable_variable(name, eagerly):
    learner, before = trained(name, steps=1)
    after = values_of(learner)
    assert before
    for path, values in before.items():
        assert np.all(after[path] != values), path


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if not method.is_trained]
)
def test_what_is_not_trained_has_nothing_to_train(name):
    learner = make(name)
    assert list(learner.trainable_variables) == list(learner.kernels) == []


@every_method
def test_float32_and_float64_agree(name):
    wide, narrow = make(name, "float64"), make(name, "float32")
    for mine, its in zip(narrow.trainable_variables, wide.trainable_variables):
        mine.assign(its.numpy())
    _, logits = adapt_and_score(wide, make_episode())
    _, rounded = adapt_and_score(narrow, make_episode(dtype="float32"))
    assert logits.dtype == "float64" and rounded.dtype == "float32"
    scale = np.abs(logits).max()
    # PT-MAP's loops end when they hardly move, which may be a step apart.
    close = 1e-3 if name == "pt_map" else 1e-4
    np.testing.assert_allclose(rounded, logits, rtol=close, atol=close * scale)


@every_query_aware_method
def test_support_and_queries_may_be_uneven_and_in_any_order(name):
    learner, episode = make(name), make_episode(tasks=1)
    assert learner.answer  # it says so of itself, as its entry does
    random, size = np.random.default_rng(0), N * K - 1  # a class has one less
    support = tf.reshape(episode.support_inputs, [1, -1, D])
    targets = tf.one_hot(
        tf.reshape(episode.support_labels, [1, -1]), N, dtype="float64"
    )
    queries = tf.reshape(episode.query_inputs, [1, -1, D])[:, 1:]
    mine, theirs = random.permutation(queries.shape[1]), random.permutation(size)
    once = learner.answer(support[:, :size], targets[:, :size], queries)
    inputs = (tf.gather(x, theirs, axis=1) for x in (support, targets))
    again = learner.answer(*inputs, tf.gather(queries, mine, axis=1))
    assert once.shape == [1, queries.shape[1], N]
    np.testing.assert_allclose(again, once.numpy()[:, mine], rtol=1e-7, atol=1e-9)


@every_learner
def test_even_support_given_in_any_order_is_adapted_to_as_an_episode(name):
    learner, episode = make(name), make_episode(tasks=1)
    order = np.random.default_rng(0).permutation(N * K)
    support = tf.gather(tf.reshape(episode.support_inputs, [-1, D]), order)
    labels = tf.gather(tf.reshape(episode.support_labels, [-1]), order)
    unknown = [tf.TensorSpec([None, D], "float64"), tf.TensorSpec([None], "int32")]
    eager = uneven_adapt(learner)
    graph = tf.function(eager, [*unknown, tf.TensorSpec([], "int32")], autograph=False)
    adapted = learner.adapt(episode.support_inputs, episode.support_labels)
    for adapt in (eager, graph):
        uneven = adapt(support, labels, tf.constant(N))
        np.testing.assert_allclose(
            uneven.classifier, adapted.classifier[0], rtol=1e-7, atol=1e-9
        )
        assert uneven.latents_before.shape == uneven.latents_after.shape


def _changed_settings() -> list:
    """(method, settings): every setting of models and methods changed.

    Each that a method has by itself; all others, which it should not heed, at a time.
    They are read from the schema, so that a new one is among them.
    """
    fields = [f for g in ("model", "methods") for f in dataclasses.fields(GROUPS[g])]
    others = {"method", "ensemble", "ensemble_share"}  # see test_ensemble.py
    names, found = {field.name for field in fields} - others, []
    kinds = {field.name: field.metadata["rule"].kind for field in fields}
    for name in METHODS:
        if METHODS[name].query_aware:  # an export has the same function as a test
            continue
        usual = {**Config().flat(), **SETTINGS[name]}
        own = sorted(names & set(effective(name)))
        for settings in ([], *([setting] for setting in own), sorted(names - set(own))):
            changed = {each: _changed(each, usual[each], kinds) for each in settings}
            seldom = name in ABLATIONS and len(settings) == 1
            marks = pytest.mark.slow if seldom else ()
            found.append(pytest.param(name, changed, marks=marks))
    steps = {"inner_unroll_length": 0, "finetuning_unroll_length": 0}
    return [*found, ("leo", steps)]


def _changed(name, value, kinds):
    if name == "residual":
        return "ridge"
    if value is None and kinds[name] is int:
        return 7
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "{}"
    return value + 1 if isinstance(value, int) else 0.6 * (value or 1.0)


@pytest.mark.parametrize(
    ("name", "settings"),
    _changed_settings(),
    ids=lambda value: value if isinstance(value, str) else "+".join(value) or "usual",
)
def test_equal_support_gives_an_export_what_was_tested(name, settings):
    given = {"method": name, "way": N, "shot": K, "dtype": "float64"}
    config = Config().replace(**{**given, **SETTINGS[name], **settings})
    learner = methods.build(config, D, classes_for(name))
    random = np.random.default_rng(3)
    for variable in learner.trainable_variables:
        variable.assign(variable.numpy() + 0.3 * random.normal(size=variable.shape))
    episode = make_episode(tasks=2)
    adapted = learner.adapt(episode.support_inputs, episode.support_labels)
    support = tf.reshape(episode.support_inputs[1], [N * K, D])
    labels = tf.reshape(episode.support_labels[1], [N * K])
    order = random.permutation(N * K)  # in any order
    uneven = uneven_adapt(learner)(
        tf.gather(support, order), tf.gather(labels, order), tf.constant(N)
    )
    expected = adapted.classifier[1].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(uneven.classifier, expected, rtol=0, atol=1e-9 * scale)
