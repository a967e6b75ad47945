"""Tests that an export works without this package, however it is loaded."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from c_api import CModel
from exported_models import D, make_request, part, tensors

from leo_tf.serving.model_versions import Versions
from leo_tf.serving.models import LocalModel

pytestmark = pytest.mark.long

FIELDS = {
    "adapt": ("support", "labels"),
    "embed": ("support", "labels"),
    "classify": ("support", "labels", "queries"),
    "serving_default": ("support", "labels", "queries"),
}
REQUESTS = [make_request(2, 1), make_request(3, 2), make_request(7, 4)]


@pytest.fixture(scope="module")
def version(trained_export) -> pathlib.Path:
    return trained_export / "1"


@pytest.fixture(scope="module")
def expected(version):
    """Returns (signature, number of the request) -> the answer in this process."""
    loaded = tf.saved_model.load(str(version))
    return {
        (signature, i): {
            name: value.numpy()
            for name, value in loaded.signatures[signature](
                **tensors(part(request, *fields))
            ).items()
        }
        for signature, fields in FIELDS.items()
        for i, request in enumerate(REQUESTS)
    }


def assert_equal(given, expected):
    assert set(given) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(given[name], value, atol=1e-6, err_msg=name)
        assert given[name].dtype == value.dtype and given[name].shape == value.shape


_ALONE = """
import importlib.abc
import sys

import numpy as np


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        ours = "leo_tf", "configs", "data_pipeline", "tensorflow_probability"
        if name.split(".")[0] in ours:
            raise ImportError(f"{name} is not to be had here")


sys.meta_path.insert(0, Refuse())
import tensorflow as tf

version, requests, answers = sys.argv[1:]
requests = np.load(requests)
loaded, found = tf.saved_model.load(version), {}
for key in {name.rpartition("/")[0] for name in requests.files}:
    inputs = {
        name.rpartition("/")[2]: tf.constant(requests[name])
        for name in requests.files
        if name.rpartition("/")[0] == key
    }
    outputs = loaded.signatures[key.partition("/")[0]](**inputs)
    found |= {f"{key}/{name}": value.numpy() for name, value in outputs.items()}
try:
    support = tf.constant(requests["adapt/0/support"])
    loaded.signatures["adapt"](support=support, labels=tf.constant([0], tf.int64))
except tf.errors.InvalidArgumentError as error:
    found["refusal"] = np.array(error.message)
try:
    import leo_tf
except ImportError:
    found["alone"] = np.array(True)
np.savez(answers, **found)
"""


def test_a_fresh_process_that_cannot_import_this_package_answers_alike(
    version, expected, tmp_path
):
    requests = {
        f"{signature}/{i}/{name}": value
        for signature, fields in FIELDS.items()
        for i, request in enumerate(REQUESTS)
        for name, value in part(request, *fields).items()
    }
    np.savez(tmp_path / "requests.npz", **requests)
    (tmp_path / "alone.py").write_text(_ALONE)
    command = [sys.executable, "-I", "alone.py", str(version)]
    done = subprocess.run(
        [*command, "requests.npz", "answers.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npz")
    for (signature, i), answer in expected.items():
        given = {name: answers[f"{signature}/{i}/{name}"] for name in answer}
        assert_equal(given, answer)
    assert "labels: expected 2 labels" in str(answers["refusal"])
    assert answers["alone"]


def saved_model_cli(*arguments, cwd) -> str:
    """Returns the output of TensorFlow's program in this process's environment."""
    program = pathlib.Path(sys.executable).with_name("saved_model_cli")
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_saved_model_cli_runs_it(version, expected, tmp_path):
    request = REQUESTS[1]
    np.savez(tmp_path / "request.npz", **request)
    inputs = ";".join(f"{name}=request.npz[{name}]" for name in request)
    signature = "--tag_set", "serve", "--signature_def", "classify"
    saved_model_cli(
        *("run", "--dir", version, *signature),
        *("--inputs", inputs, "--outdir", "answers"),
        cwd=tmp_path,
    )
    answer = expected["classify", 1]
    given = {name: np.load(tmp_path / "answers" / f"{name}.npy") for name in answer}
    assert_equal(given, answer)


@pytest.mark.slow
def test_saved_model_cli_shows_its_signatures(version, tmp_path):
    shown = saved_model_cli("show", "--dir", version, "--all", cwd=tmp_path)
    for name in ("adapt", "predict", "classify", "embed", "serving_default"):
        assert f"signature_def['{name}']" in shown
    for field in ("support", "labels", "queries", "probabilities", "latents_after"):
        assert f"['{field}'] tensor_info" in shown
    signatures = shown.partition("signature_def['adapt']")[2]
    signatures = signatures.partition("Concrete Functions")[0]
    assert "unknown_rank" not in signatures
    assert f"shape: (-1, {D})" in signatures and "shape: (-1)" in signatures


SHAPES = {
    "support": [-1, D],
    "labels": [-1],
    "queries": [-1, D],
    "classifier": [-1, D],
}


def test_signatures_tell_the_shapes_of_what_goes_in_and_comes_out(version):
    served = Versions(version.parent)
    served.refresh()
    described = served.require().signature_def
    numbers = served.require().metadata["parameters_per_class"]
    shapes = {**SHAPES, "classifier": [-1, numbers]}
    for name in (*FIELDS, "predict"):
        for field, tensor in described[name]["inputs"].items():
            sizes = [int(dim["size"]) for dim in tensor["tensor_shape"]["dim"]]
            assert sizes == shapes[field] and not tensor["tensor_shape"]["unknown_rank"]
        for tensor in described[name]["outputs"].values():
            assert not tensor["tensor_shape"]["unknown_rank"]


WRONG = {
    "support: expected shape [S, 8], received shape [8]": {"support": (8,)},
    "support: expected shape [S, 8], received shape []": {"support": ()},
    "support: expected shape [S, 8], received shape [6 7]": {"support": (6, 7)},
    "support: expected shape [S, 8], received shape [1 6 8]": {"support": (1, 6, 8)},
    "labels: expected shape [S], received shape [6 1]": {"labels": (6, 1)},
    "labels: expected shape [S], received shape []": {"labels": ()},
    "queries: expected shape [M, 8], received shape [4 8 1]": {"queries": (4, 8, 1)},
    "queries: expected shape [M, 8], received shape [0]": {"queries": (0,)},
}


def in_session(path):
    """Loads a SavedModel as TensorFlow 1 does."""
    v1 = tf.compat.v1
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = v1.saved_model.load(session, ["serve"], str(path)).signature_def

    def ask(signature, request):
        infos = signatures[signature]
        fed = {infos.inputs[name].name: value for name, value in request.items()}
        return session.run({k: v.name for k, v in infos.outputs.items()}, fed)

    return ask


@pytest.mark.parametrize("load", [CModel, LocalModel, in_session])
def test_whoever_asks_with_a_wrong_shape_is_told_in_our_words(version, load, model):
    ask, good = model if load is CModel else load(version), REQUESTS[1]
    for words, shapes in WRONG.items():
        wrong = {k: np.ones(shape, good[k].dtype) for k, shape in shapes.items()}
        for signature, fields in FIELDS.items():
            if not set(wrong) <= set(fields):
                continue
            with pytest.raises(
                (RuntimeError, ValueError, tf.errors.InvalidArgumentError)
            ) as caught:
                ask(signature, {**part(good, *fields), **wrong})
            said = [
                line for line in str(caught.value).splitlines() if "expected" in line
            ]
            assert len(said) == 1 and words in said[0], caught.value
    ask("classify", good)


@pytest.fixture(scope="module")
def model(version) -> CModel:
    return CModel(version)


def test_the_c_interface_loads_it_as_tensorflow_serving_does(model, expected):
    for (signature, i), answer in expected.items():
        inputs = part(REQUESTS[i], *FIELDS[signature])
        assert_equal(model(signature, inputs), answer)
    request = REQUESTS[1]
    adapted = model("adapt", part(request, "support", "labels"))
    later = {"classifier": adapted["classifier"], "queries": request["queries"]}
    answer = model("predict", later)
    assert answer.pop("model") == adapted["model"] > 0
    assert_equal(answer, expected["classify", 1])


def test_the_c_interface_refuses_bad_requests_and_goes_on(model, expected):
    good = REQUESTS[1]
    bad = [
        ("support: expected shape", {"support": good["support"][0]}),
        ("support: expected finite", {"support": good["support"] * np.float32("nan")}),
        ("labels: expected all classes", {"labels": good["labels"] * 2}),
        ("queries: expected shape", {"queries": good["queries"][:, :3]}),
    ]
    for words, changes in bad:
        with pytest.raises(RuntimeError, match=words):
            model("classify", {**good, **changes})
        assert_equal(model("classify", good), expected["classify", 1])
