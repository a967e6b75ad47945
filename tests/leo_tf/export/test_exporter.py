"""Answers of an export in this process; see test_loaders.py for other programs."""

import json

import numpy as np
import pytest
import tensorflow as tf
from exported_models import (
    SHAPES,
    D,
    best_learner,
    export,
    make_request,
    part,
    temperature_of,
    tensors,
    training_answers,
)

from leo_tf.configs.schema import MethodConfig
from leo_tf.evaluation.confidence import LEVELS
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable
from leo_tf.methods.inductive.linear import LinearRegression, logistic, ridge
from leo_tf.methods.inductive.maml import MAML
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.runs.run import load_run

pytestmark = pytest.mark.long

SUPPORT = ("support", "labels")
MAX_CLASSES, MAX_SUPPORT = 7, 30


@pytest.fixture(scope="module")
def loaded(trained, tmp_path_factory):
    """Returns the exported run, loaded."""
    directory = tmp_path_factory.mktemp("exports")
    caps = f"--max_classes={MAX_CLASSES}", f"--max_support={MAX_SUPPORT}"
    assert export(trained, directory, *caps) == 0
    return tf.saved_model.load(str(directory / "1"))


@pytest.fixture(scope="module")
def ask(loaded):
    """Returns a function that calls a signature with arrays, and returns arrays."""

    def ask(signature, request) -> dict[str, np.ndarray]:
        outputs = loaded.signatures[signature](**tensors(request))
        return {name: value.numpy() for name, value in outputs.items()}

    return ask


@pytest.mark.parametrize("way,shot", SHAPES)
def test_answers_are_those_of_the_training_code(way, shot, ask, trained):
    request = make_request(way, shot)
    temperature = temperature_of(trained)
    assert not 0.9 < temperature < 1.1
    given = best_learner(trained), way, shot, request
    expected = training_answers(*given, temperature)
    adapted = ask("adapt", part(request, *SUPPORT))
    answer = ask("classify", request)
    own = adapted["classifier"][:, :D]  # perhaps with class means behind it
    np.testing.assert_allclose(own, expected["classifier"], atol=1e-6)
    np.testing.assert_allclose(answer["logits"], expected["logits"], atol=1e-5)
    probabilities = tf.nn.softmax(expected["logits"])
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-6)
    assert np.array_equal(answer["classes"], expected["logits"].argmax(axis=1))
    assert adapted["way"] == way


def test_adapt_then_predict_is_classify_and_the_default(ask):
    request = make_request()
    classifier = ask("adapt", part(request, *SUPPORT))["classifier"]
    once = ask("classify", request)
    by_default = ask("serving_default", request)
    later = ask("predict", {"classifier": classifier, "queries": request["queries"]})
    answers = {"probabilities", "logits", "classes", "known", "plausible"}
    assert set(once) == answers
    for name, value in once.items():
        assert np.array_equal(value, later[name])
        assert np.array_equal(value, by_default[name])


def test_answers_say_how_a_query_and_classes_compare_with_validation(ask, trained):
    run = load_run(trained)
    fitted = run.confidence(run.checkpoints.best())
    request = make_request(queries=40)
    answer = ask("classify", request)
    logits, shares = (
        answer[name].astype(float) for name in ("logits", "probabilities")
    )
    likeness = {
        "probability": shares.max(axis=1),
        "logit": logits.max(axis=1),
        "energy": np.log(np.exp(logits).sum(axis=1)),
        "cosine": cosines_and_means(request)[0],
    }[fitted.score]
    lower = (likeness[:, np.newaxis] >= fitted.known).sum(axis=1)
    expected = np.maximum(lower - 1, 0) / 200
    np.testing.assert_allclose(answer["known"], expected, atol=0.0051)  # a rank
    assert np.mean(np.abs(answer["known"] - expected) < 1e-6) > 0.9
    assert 0 < answer["known"].mean() < 1
    for level, least in list(zip(LEVELS, fitted.least))[::20]:
        in_set = answer["plausible"] >= 1 - level - 1e-6
        np.testing.assert_array_equal(in_set, shares >= np.float32(least))
    assert 0 < answer["plausible"].mean() < 1


def cosines_and_means(request):
    """Largest cosine of each query with a class mean, and these means."""
    rows = {name: request[name] for name in ("support", "queries")}
    unit = {k: x / np.linalg.norm(x, axis=1, keepdims=True) for k, x in rows.items()}
    labels = request["labels"]
    members = [unit["support"][labels == label] for label in range(max(labels) + 1)]
    means = np.stack([each.mean(axis=0) for each in members])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return (unit["queries"] @ means.T).max(axis=1), means


def test_likeness_may_be_the_cosine_with_a_class_mean(trained_copy, tmp_path):
    path = trained_copy / "confidence.json"
    fitted = json.loads(path.read_text())
    known = np.linspace(-0.5, 1, len(LEVELS)).tolist()
    path.write_text(json.dumps({**fitted, "score": "cosine", "known": known}))
    assert export(trained_copy, tmp_path) == 0
    ask = tf.saved_model.load(str(tmp_path / "1")).signatures
    request = make_request(way=3, shot=2, queries=20)
    once = {k: v.numpy() for k, v in ask["classify"](**tensors(request)).items()}
    cosines, means = cosines_and_means(request)
    above = (cosines[:, np.newaxis] >= known).sum(axis=1)
    np.testing.assert_allclose(once["known"], np.maximum(above - 1, 0) / 200, atol=6e-3)
    assert once["known"].std() > 0.05
    # The rest is as ever; the classifier has the means behind its weights.
    expected = training_answers(best_learner(trained_copy), 3, 2, request)
    temperature = fitted["temperature"]
    logits = expected["logits"] / temperature
    np.testing.assert_allclose(once["logits"], logits, rtol=1e-4, atol=1e-5)
    adapted = ask["adapt"](**tensors(part(request, *SUPPORT)))["classifier"].numpy()
    own = expected["classifier"].shape[1]
    np.testing.assert_allclose(adapted[:, :own], expected["classifier"], atol=1e-6)
    np.testing.assert_allclose(adapted[:, own:], means, atol=1e-6)
    metadata = json.loads((tmp_path / "1" / "export.json").read_text())
    assert metadata["parameters_per_class"] == adapted.shape[1] == own + means.shape[1]
    later = {"classifier": adapted, "queries": request["queries"]}
    answer = ask["predict"](**tensors(later))
    for name, value in once.items():
        np.testing.assert_array_equal(answer[name], value)


def test_what_nothing_was_fitted_to_is_exported_without(trained_copy, tmp_path):
    (trained_copy / "confidence.json").unlink()
    assert export(trained_copy, tmp_path) == 0
    exported = tf.saved_model.load(str(tmp_path / "1"))
    request = make_request()
    answer = exported.signatures["classify"](**tensors(request))
    assert set(answer) == {"probabilities", "logits", "classes"}
    logits = training_answers(best_learner(trained_copy), 3, 2, request)["logits"]
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-6)
    metadata = json.loads((tmp_path / "1" / "export.json").read_text())
    assert metadata["fitted_on_validation"] is None
    assert "known" not in metadata["signatures"]["classify"]["outputs"]


def test_adapt_and_predict_tell_which_model_they_are(trained_copy, tmp_path):
    request, found = make_request(), []
    for kl_weight in (None, None, 0.5):
        if kl_weight:
            path = trained_copy / "config.json"
            text = path.read_text().replace('"kl_weight": 0.001', '"kl_weight": 0.5')
            path.write_text(text)
        assert export(trained_copy, tmp_path / "out") == 0
        version = str(len(found) + 1)
        ask = tf.saved_model.load(str(tmp_path / "out" / version)).signatures
        adapted = ask["adapt"](**tensors(part(request, *SUPPORT)))
        later = {"classifier": adapted["classifier"], "queries": request["queries"]}
        assert ask["predict"](**tensors(later))["model"] == adapted["model"]
        found.append(int(adapted["model"]))
    assert found[0] == found[1] != found[2] and max(found) < 2**48


def test_adapt_tells_loss_and_accuracy_on_the_support_afterwards(ask):
    request = make_request(way=5, shot=3, seed=1)
    adapted = ask("adapt", part(request, *SUPPORT))
    on_support = {**part(request, *SUPPORT), "queries": request["support"]}
    answer = ask("classify", on_support)
    labels = request["labels"]
    losses = -np.log(answer["probabilities"][np.arange(15), labels])
    assert adapted["support_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    right = answer["classes"] == labels
    assert adapted["support_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert 0 < right.mean() < 1


def test_embed_gives_latents_before_and_after_both_of_the_learner(ask, trained):
    request, leo = make_request(), best_learner(trained)
    given = ask("embed", part(request, *SUPPORT))
    lengths = np.linalg.norm(request["support"], axis=1, keepdims=True)
    unit = tf.constant(request["support"] / lengths)
    expected = leo.adapt_uneven(unit, request["labels"], tf.constant(3))
    for name in ("latents_before", "latents_after"):
        np.testing.assert_allclose(given[name], getattr(expected, name), atol=1e-6)
    assert not np.allclose(given["latents_before"], given["latents_after"])


@pytest.mark.parametrize("scale", [1e-17, 1e17])
def test_lengths_of_rows_say_nothing(scale, ask):
    request = make_request()
    scales = scale ** np.linspace(0, 1, 6, dtype=np.float32)[:, np.newaxis]
    scaled = {**request, "support": request["support"] * scales}
    scaled["queries"] = request["queries"] * np.float32(scale)
    given, expected = ask("classify", scaled), ask("classify", request)
    np.testing.assert_allclose(given["logits"], expected["logits"], atol=1e-6)


def test_examples_of_uneven_classes_in_any_order_are_answered_alike(ask):
    request = make_request(way=3, shot=3)
    kept = np.array([0, 3, 4, 6, 7, 8])  # 1, 2 and 3 examples
    request.update(support=request["support"][kept], labels=request["labels"][kept])
    order = np.array([5, 0, 3, 1, 4, 2])
    shuffled = {k: request[k][order] for k in SUPPORT} | part(request, "queries")
    given, expected = ask("classify", shuffled), ask("classify", request)
    np.testing.assert_allclose(given["logits"], expected["logits"], atol=1e-6)


def test_any_number_of_queries_is_answered_none_too(ask):
    request = make_request(queries=300)
    expected = ask("classify", request)["logits"]
    one = ask("classify", {**request, "queries": request["queries"][7:8]})
    np.testing.assert_allclose(one["logits"][0], expected[7], atol=1e-6)
    none = ask("classify", {**request, "queries": request["queries"][:0]})
    assert none["probabilities"].shape == (0, 3) and none["classes"].shape == (0,)


@pytest.mark.usefixtures("quick_job")
def test_a_run_in_float64_answers_in_float32_what_it_computes_in_float64(
    train, tmp_path
):
    flags = "--dtype=float64", "--num_steps=2", "--quiet"
    assert train(tmp_path / "run", *flags) == 0
    assert export(tmp_path / "run", tmp_path / "out") == 0
    signature = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures["classify"]
    request = make_request()
    wide = {k: v.astype(float) if k != "labels" else v for k, v in request.items()}
    learner = best_learner(tmp_path / "run")
    temperature = temperature_of(tmp_path / "run")
    logits = training_answers(learner, 3, 2, wide, temperature)["logits"]
    assert logits.dtype == np.float64
    given = signature(**tensors(request))["logits"].numpy()
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, logits, rtol=1e-7, atol=1e-7)


def maml():
    head = MAML(3, MethodConfig(adaptation_lr_init=0.5), learned_rates=True)
    head.build([None, 3, 2, D])
    head.kernel.assign(np.random.default_rng(0).normal(size=[3, D]))
    return head


METHODS = {
    "maml": (maml, D + 1),
    "centroid": (NearestCentroid, D),
    "centroid_euclidean": (lambda: NearestCentroid("euclidean"), D + 1),
    "ridge": (lambda: LinearRegression(ridge, 0.5), D + 1),
    "logistic": (lambda: LinearRegression(logistic, 0.5), D + 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_other_methods_answer_as_in_training_too(name, tmp_path):
    learner, parameters = METHODS[name][0](), METHODS[name][1]
    limits = Limits(D, parameters, 7, 30, way=getattr(learner, "way", None))
    servable = Servable(learner, limits, "float32")
    tf.saved_model.save(servable, str(tmp_path), signatures=servable.signatures())
    signatures = tf.saved_model.load(str(tmp_path)).signatures
    request = make_request()
    expected = training_answers(learner, 3, 2, request)
    given = signatures["adapt"](**tensors(part(request, *SUPPORT)))
    np.testing.assert_allclose(
        given["classifier"], expected["classifier"], atol=2e-6, rtol=2e-6
    )
    logits = signatures["classify"](**tensors(request))["logits"]
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-6, rtol=2e-6)
    latents = signatures["embed"](**tensors(part(request, *SUPPORT)))
    assert latents["latents_before"].shape == (3, 0)


def test_the_adaptation_is_stored_once_for_all_signatures(monkeypatch):
    traced, adapt_uneven = [], NearestCentroid.adapt_uneven

    def counted(self, *given):
        traced.append(given)
        return adapt_uneven(self, *given)

    monkeypatch.setattr(NearestCentroid, "adapt_uneven", counted)
    signatures = Servable(
        NearestCentroid(), Limits(D, D, 7, 30), "float32"
    ).signatures()
    for name in ("adapt", "classify", "embed"):
        signatures[name].get_concrete_function()
    assert len(traced) == 1
