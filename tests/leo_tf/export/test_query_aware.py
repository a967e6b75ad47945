"""Exports of methods that see all queries together: they have `classify` only.

Shapes: S support examples, M queries, N way, D features.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from exported_models import D, export, make_request, temperature_of, tensors

from leo_tf.errors import RequestError
from leo_tf.methods import registry
from leo_tf.methods.query_aware import pt_map
from leo_tf.methods.query_aware.bd_cspn import BDCSPN
from leo_tf.methods.query_aware.laplacian_shot import LaplacianShot
from leo_tf.methods.query_aware.soft_kmeans import SoftKMeans
from leo_tf.serving.classifier import Classifier

pytestmark = pytest.mark.usefixtures("quick_jobs")
# PT-MAP, whose loops take longer, has a test of its own.
METHODS = {
    "bd_cspn": BDCSPN(5.0),
    "soft_kmeans": SoftKMeans(3.0, 5.0),
    "laplacian_shot": LaplacianShot(0.7, 5.0),
}
STRENGTHS = {
    "soft_kmeans": "--assignment_sharpness=3",
    "laplacian_shot": "--laplacian_weight=0.7",
}


@pytest.fixture(scope="module")
def runs(train, quick_jobs, tmp_path_factory):
    """Method -> its run and its export."""
    directory, found = tmp_path_factory.mktemp("transductive"), {}
    for name in METHODS:
        run, out = directory / name, directory / f"{name} exported"
        strength = [STRENGTHS[name]] if name in STRENGTHS else []
        flags = f"--method={name}", "--score_scale=5", *strength, "--quiet"
        assert train(run, *flags) == 0 and export(run, out) == 0
        found[name] = run, out
    return found


@pytest.fixture
def run(runs):
    return runs["bd_cspn"][0]


@pytest.fixture
def out(runs):
    return runs["bd_cspn"][1]


@pytest.mark.parametrize("name", METHODS)
def test_it_has_the_one_signature_that_fits_and_answers_as_the_method(name, runs):
    run, out = runs[name]
    loaded = tf.saved_model.load(str(out / "1"))
    assert set(loaded.signatures) == {"classify", "serving_default"}
    metadata = json.loads((out / "1" / "export.json").read_text())
    assert list(metadata["signatures"]) == ["classify"]
    assert metadata["parameters_per_class"] is None and metadata["method"] == name
    request = make_request(3, 4)
    keep = [0, 1, 3, 5, 6, 7, 8, 11]  # uneven
    request = {
        **request,
        "support": request["support"][keep],
        "labels": request["labels"][keep],
    }
    inputs = (request[name][np.newaxis] for name in ("support", "queries"))
    support, queries = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in inputs)
    targets = tf.one_hot(request["labels"][np.newaxis], 3)
    expected = METHODS[name].answer(support, targets, queries)[0]
    expected = expected / temperature_of(run)
    for name in ("classify", "serving_default"):
        answer = loaded.signatures[name](**tensors(request))
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)
        np.testing.assert_array_equal(answer["classes"], np.argmax(expected, axis=1))
        shares = tf.nn.softmax(expected)
        np.testing.assert_allclose(answer["probabilities"], shares, atol=1e-6)
    none = {**request, "queries": request["queries"][:0]}
    assert loaded.signatures["classify"](**tensors(none))["logits"].shape == [0, 3]


def test_bad_requests_are_refused_in_our_words(out):
    loaded = tf.saved_model.load(str(out / "1"))
    request = make_request(3, 2)
    request["labels"] = request["labels"] * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="received none of 1"):
        loaded.signatures["classify"](**tensors(request))


def test_every_transductive_method_is_exported_by_a_test_of_this_file():
    named = {name for name, method in registry.METHODS.items() if method.query_aware}
    assert named == {*METHODS, "pt_map"}


@pytest.mark.long
def test_pt_map_is_exported_too_whose_loops_are_of_any_size(
    train, tmp_path, monkeypatch
):
    monkeypatch.setattr(pt_map, "_MOST_SINKHORN_STEPS", 1000)
    tf.config.run_functions_eagerly(False)
    try:
        flags = "--method=pt_map", "--score_scale=1", "--quiet"
        assert train(tmp_path / "run", *flags) == 0
        assert export(tmp_path / "run", tmp_path / "out") == 0
    finally:
        tf.config.run_functions_eagerly(True)
    temperature = temperature_of(tmp_path / "run")
    loaded = tf.saved_model.load(str(tmp_path / "out" / "1"))
    for way, shot in ((2, 1), (5, 3)):
        request = make_request(way, shot)
        answer = loaded.signatures["classify"](**tensors(request))
        shares = tf.nn.softmax(temperature * answer["logits"])
        each = len(request["queries"]) / way
        np.testing.assert_allclose(np.sum(shares, axis=0), each, rtol=1e-3)


def test_the_client_says_which_signatures_there_are(out):
    features, labels = np.eye(D, dtype=np.float32)[:4], [0, 0, 1, 1]
    said = "signature_name: expected one of classify, serv.*'adapt', which transductive"
    with pytest.raises(RequestError, match=said):
        Classifier(out).fit(features, labels)


def test_a_server_serves_it(out):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from running_server import serving as running

    from leo_tf.serving.rest_model import RestModel

    request = make_request(3, 2)
    with running(out) as (port, _):
        model = RestModel(f"http://127.0.0.1:{port}", 30.0)
        answer = model("classify", request)
        with pytest.raises(RequestError, match="expected one of classify"):
            model("adapt", {k: request[k] for k in ("support", "labels")})
    loaded = tf.saved_model.load(str(out / "1"))
    expected = loaded.signatures["classify"](**tensors(request))
    np.testing.assert_allclose(answer["logits"], expected["logits"], atol=1e-5)


def test_tensorflow_lite_is_refused_in_a_line(run, tmp_path, capsys):
    assert export(run, tmp_path / "lite", "--export_format=tflite") == 2
    said = capsys.readouterr().err
    assert "expected saved_model, because TensorFlow Lite lacks operators" in said
    assert "tflite for BDCSPN" in said and not (tmp_path / "lite").exists()
