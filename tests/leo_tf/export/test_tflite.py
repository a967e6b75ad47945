"""Tests that TensorFlow Lite agrees with training, with built-in operators only."""

import json
import pathlib

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
    training_answers,
)

from leo_tf.configs.schema import ModelConfig
from leo_tf.errors import FlagError
from leo_tf.export.exporter import check_convertible, to_tflite
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable
from leo_tf.methods.inductive.linear import LinearRegression, logistic, ridge
from leo_tf.methods.inductive.maml import MAML
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model.leo import LEO

SUPPORT = ("support", "labels")
# The old interpreter has the built-in operators only, as these tests need.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated"),
]


@pytest.fixture(scope="module")
def version(trained, tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("exports")
    assert export(trained, directory, "--export_format=tflite") == 0
    return directory / "1"


@pytest.fixture(scope="module")
def interpreter(version):
    return tf.lite.Interpreter(str(version / "model.tflite"))


@pytest.mark.parametrize("way,shot", [*SHAPES, SHAPES[0]])
def test_every_way_and_shot_is_answered_as_by_the_training_code(
    way, shot, interpreter, trained
):
    request = make_request(way, shot, queries=way + 3)
    given = best_learner(trained), way, shot, request
    expected = training_answers(*given, temperature_of(trained))
    adapted = interpreter.get_signature_runner("adapt")(**part(request, *SUPPORT))
    answer = interpreter.get_signature_runner("classify")(**request)
    later = interpreter.get_signature_runner("predict")(
        classifier=adapted["classifier"], queries=request["queries"]
    )
    own = adapted["classifier"][:, :D]  # perhaps with class means behind it
    np.testing.assert_allclose(own, expected["classifier"], atol=1e-5)
    np.testing.assert_allclose(answer["logits"], expected["logits"], atol=1e-5)
    np.testing.assert_allclose(later["logits"], expected["logits"], atol=1e-5)
    assert np.array_equal(answer["classes"], expected["logits"].argmax(axis=1))
    probabilities = tf.nn.softmax(expected["logits"])
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)


def test_uneven_shots_are_answered_as_by_the_saved_model(interpreter, trained_export):
    signatures = tf.saved_model.load(str(trained_export / "1")).signatures
    request = part(make_request(3, 2), *SUPPORT)
    request["labels"] = np.array([2, 0, 1, 2, 2, 1])
    for name in ("adapt", "embed", "classify"):
        if name == "classify":
            request["queries"] = make_request(queries=20)["queries"]
        given = interpreter.get_signature_runner(name)(**request)
        for field, value in signatures[name](**request).items():
            np.testing.assert_allclose(given[field], value, atol=1e-5)


def test_only_built_in_operators_are_needed(interpreter):
    names = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert "WHILE" in names  # from the relation network, so the list is complete
    assert not [name for name in names if name.startswith(("Flex", "CUSTOM"))]


def test_the_manifest_says_what_the_file_is(version):
    metadata = json.loads((version / "export.json").read_text())
    assert metadata["export_format"] == "tflite" and metadata["embedding_size"] == D
    assert set(metadata["files"]) == {"model.tflite"}
    names = {path.name for path in version.iterdir()}
    assert names == {"model.tflite", "export.json", "README.md"}


@pytest.mark.usefixtures("quick_job")
def test_a_run_in_mixed_precision_answers_in_whole_precision(train, tmp_path):
    flags = "--mixed_precision", "--num_steps=2", "--quiet"
    assert train(tmp_path / "run", *flags) == 0
    assert export(tmp_path / "run", tmp_path / "out", "--export_format=tflite") == 0
    interpreter = tf.lite.Interpreter(str(tmp_path / "out" / "1" / "model.tflite"))
    request = make_request()
    given = interpreter.get_signature_runner("classify")(**request)["logits"]
    mixed = best_learner(tmp_path / "run")
    whole = LEO(mixed.config)
    whole.build([None, 3, 2, D])
    for variable, its in zip(whole.variables, mixed.variables, strict=True):
        variable.assign(its)
    temperature = temperature_of(tmp_path / "run")
    expected = training_answers(whole, 3, 2, request, temperature)["logits"]
    np.testing.assert_allclose(given, expected, atol=1e-5)
    rounded = training_answers(mixed, 3, 2, request, temperature)["logits"]
    assert np.abs(rounded - expected).max() > 1e-4


def residual_leo() -> LEO:
    learner = LEO(ModelConfig(residual="centroid"))
    learner.build([None, 3, 2, D])
    kernel = np.random.default_rng(0).normal(size=learner.decoder.kernel.shape)
    learner.decoder.kernel.assign(0.1 * kernel)
    return learner


@pytest.mark.parametrize(
    "make, parameters",
    [
        (NearestCentroid, D),
        (lambda: NearestCentroid("euclidean"), D + 1),
        (residual_leo, D),
    ],
    ids=["cosine", "euclidean", "residual_leo"],
)
def test_class_means_become_a_file_too_alone_and_below_leo(make, parameters):
    learner = make()
    check_convertible(learner)
    limits = Limits(D, parameters, 7, 30)
    content = to_tflite(Servable(learner, limits, "float32", checked=False))
    request = make_request()
    expected = training_answers(learner, 3, 2, request)["logits"]
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner("classify")
    np.testing.assert_allclose(runner(**request)["logits"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "learner",
    [
        MAML(3),
        LinearRegression(logistic, 0.5),
        LinearRegression(ridge, 0.5),
        LEO(ModelConfig(residual="ridge")),
    ],
    ids=["maml", "logistic", "ridge", "leo"],
)
def test_a_method_that_needs_other_operators_is_refused(learner):
    with pytest.raises(FlagError, match="--export_format: expected saved_model"):
        check_convertible(learner)
