"""Requests that the graph itself refuses, and its messages."""

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from exported_models import D, export, make_request, part, tensors

from leo_tf.configs.schema import MethodConfig
from leo_tf.export.request_checks import Limits, unit_rows
from leo_tf.export.signatures import Servable
from leo_tf.methods.inductive.maml import MAML

MAX_CLASSES, MAX_SUPPORT = 4, 12
SIGNATURES = {
    "adapt": ("support", "labels"),
    "embed": ("support", "labels"),
    "classify": ("support", "labels", "queries"),
    "serving_default": ("support", "labels", "queries"),
    "predict": ("classifier", "queries"),
}
GOOD = {**make_request(), "classifier": np.float32(np.eye(3, D))}
LABELS = GOOD["labels"]


def row(field, number, value):
    """Returns the good value of a field with one row replaced by a constant."""
    changed = GOOD[field].copy()
    changed[number] = value
    return changed


def matrix_cases(field, letter):
    """Returns changes of a request, each with its message, for a field of D columns."""
    good, shape = GOOD[field], f"expected shape [{letter}, {D}], received shape"
    rows = "expected finite numbers, received NaN or infinity in row"
    return [
        ({field: good[np.newaxis]}, f"{shape} [1 {len(good)} {D}]"),
        ({field: good[0]}, f"{shape} [{D}]"),
        ({field: np.float32(1)}, f"{shape} []"),
        ({field: good[:, 1:]}, f"{shape} [{len(good)} {D - 1}]"),
        ({field: good[:, :0]}, f"{shape} [{len(good)} 0]"),
        ({field: row(field, 1, np.nan)}, f"{rows} 1"),
        ({field: row(field, 2, np.inf)}, f"{rows} 2"),
        ({field: row(field, 0, -np.inf)}, f"{rows} 0"),
        ({field: row(field, 1, 1e18)}, "to 1e+18, received length 2.828427"),
        ({field: row(field, 1, 3e38)}, "to 1e+18, received length inf in row 1"),
    ]


def short_row_cases(field):
    length = "expected rows of length 1e-18 to 1e+18, received length"
    return [
        ({field: row(field, 2, 0)}, f"{length} 0 in row 2"),
        ({field: row(field, 2, 1e-19)}, f"{length} 2.8284"),
        ({field: row(field, 2, 1e-42)}, f"{length} 0 in row 2"),
    ]


def of_rows(count, labels):
    return {"support": np.ones([count, D], np.float32), "labels": labels}


LABEL_CASES = [
    ({"labels": LABELS[np.newaxis]}, "expected shape [S], received shape [1 6]"),
    ({"labels": 1}, "expected shape [S], received shape []"),
    ({"labels": LABELS[1:]}, "expected 6 labels, one per row of `support`, received 5"),
    ({"labels": [0, 1] * 4}, "expected 6 labels, one per row of `support`, received 8"),
    ({"labels": [0, 0, 1, -1, 2, 2]}, "from 0 to 3, received -1 in row 3"),
    ({"labels": [0, 0, 1, 1, 2, 4]}, "from 0 to 3, received 4 in row 5"),
    ({"labels": [2**63 - 1, 0, 1, 1, 2, 4]}, "received 9223372036854775807 in row 0"),
    ({"labels": [-(2**63), 0, 1, 1, 2, 2]}, "received -9223372036854775808 in row 0"),
    ({"labels": [2**32, 0, 1, 1, 2, 2]}, "received 4294967296 in row 0"),
    ({"labels": [0] * 6}, "expected at least 2 classes, received 1"),
    ({"labels": [0, 0, 1, 1, 3, 3]}, "all classes from 0 to 3, received none of 2"),
    ({"labels": [1, 1, 1, 1, 2, 2]}, "all classes from 0 to 2, received none of 0"),
]
SUPPORT_CASES = [
    *matrix_cases("support", "S"),
    *short_row_cases("support"),
    (of_rows(0, []), "expected 2 to 12 examples, received 0"),
    (of_rows(1, [0]), "expected 2 to 12 examples, received 1"),
    (of_rows(13, [0, 1] + [2] * 11), "expected 2 to 12 examples, received 13"),
]
QUERY_CASES = [*matrix_cases("queries", "M"), *short_row_cases("queries")]
CLASSIFIER_CASES = [
    *matrix_cases("classifier", "N"),
    ({"classifier": GOOD["classifier"][:1]}, "expected 2 to 4 classes, received 1"),
    ({"classifier": GOOD["classifier"][:0]}, "expected 2 to 4 classes, received 0"),
    ({"classifier": np.eye(5, D)}, "expected 2 to 4 classes, received 5"),
]
CASES = {
    "support": SUPPORT_CASES,
    "labels": LABEL_CASES,
    "queries": QUERY_CASES,
    "classifier": CLASSIFIER_CASES,
}


@pytest.fixture(scope="module")
def signatures(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("exports")
    # Without what was fitted to it, so that a classifier has D numbers whatever it was.
    plain = directory / "run"
    shutil.copytree(trained, plain)
    (plain / "confidence.json").unlink()
    caps = f"--max_classes={MAX_CLASSES}", f"--max_support={MAX_SUPPORT}"
    assert export(plain, directory / "out", *caps) == 0
    loaded = tf.saved_model.load(str(directory / "out" / "1"))
    yield loaded.signatures  # `loaded` keeps its variables alive


def refusal(function, request) -> str:
    """Returns the graph's error for a request: one line."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        function(**tensors(request))
    said = caught.value.message.partition("assertion failed: [")[2]
    text = said.rpartition("]\n\t [[")[0] or said.rpartition("]")[0]
    assert "\n" not in text
    return text


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_bad_request_is_refused_by_field_expected_and_received(signature, signatures):
    fields = SIGNATURES[signature]
    for field in fields:
        for changes, words in CASES[field]:
            request = part({**GOOD, **changes}, *fields)
            text = refusal(signatures[signature], request)
            assert text.startswith(f"{field}: expected "), text
            assert words in text


def test_a_bad_request_leaves_the_next_good_answer_equal_to_the_bit(signatures):
    def answer():
        request = part(GOOD, *SIGNATURES["classify"])
        outputs = signatures["classify"](**tensors(request))
        return [outputs[name].numpy().tobytes() for name in sorted(outputs)]

    first = answer()
    for changes, _ in itertools.chain(SUPPORT_CASES, LABEL_CASES, QUERY_CASES):
        request = part({**GOOD, **changes}, *SIGNATURES["classify"])
        refusal(signatures["classify"], request)
        assert answer() == first


def test_of_several_mistakes_the_first_in_order_is_told(signatures):
    bad = [
        ("support: expected shape", {"support": GOOD["support"][0]}),
        ("labels: expected 6 labels", {"labels": [0, 0, 0]}),
        ("labels: expected at most", {"labels": [0, 0, 1, 1, 9, 9]}),
        ("support: expected finite", {"support": row("support", 1, np.nan)}),
        ("queries: expected shape", {"queries": GOOD["queries"][0]}),
    ]
    for (words, changes), (_, later) in itertools.combinations(bad, 2):
        request = part({**GOOD, **later, **changes}, *SIGNATURES["classify"])
        for _ in range(3):  # checks in parallel would report either of them
            assert refusal(signatures["classify"], request).startswith(words)


def test_what_just_fits_is_answered(signatures):
    labels = np.array([3, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    random = np.random.default_rng(0)
    support = random.normal(size=[12, D]) * np.geomspace(1e-17, 1e17, 12)[:, None]
    adapted = signatures["adapt"](**tensors({"support": support, "labels": labels}))
    assert adapted["way"] == 4 and np.isfinite(adapted["classifier"]).all()
    classifier = {"classifier": np.zeros([4, D]), "queries": GOOD["queries"]}
    answer = signatures["predict"](**tensors(classifier))
    assert np.array_equal(answer["probabilities"], np.full([4, 4], 0.25))


def test_a_method_of_one_way_refuses_others_by_name():
    head = MAML(3, MethodConfig())
    head.build([None, 3, 2, D])
    signatures = Servable(head, Limits(D, D + 1, 9, 99, way=3), "float32").signatures()
    support = part(make_request(way=4), "support", "labels")
    text = refusal(signatures["adapt"], support)
    assert text == "labels: expected 3 classes, received 4"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_get_the_length_that_training_gives_them(dtype):
    rows = np.random.default_rng(0).normal(size=[4, D]).astype(dtype)
    rows *= np.array([1e-17, 1.0, 1e6, 1e17], dtype)[:, np.newaxis]
    expected = rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(unit_rows(tf.constant(rows)), expected, tolerance)
    assert not np.any(unit_rows(tf.zeros([2, D], dtype)))
