""" "None of these" and sets of labels from the client, by path and by URL."""

import json
import shutil
from datetime import datetime

import numpy as np
import pytest
import tensorflow as tf
from exported_models import make_request, part, tensors

from leo_tf.console import Console
from leo_tf.serving.classifier import Classifier
from leo_tf.serving.model_versions import Served, Versions
from leo_tf.serving.models import LocalModel

REQUEST = make_request(queries=200)
LABELS = np.array(["ant", "bee", "cat"])[REQUEST["labels"]]


class Warned(Console):
    """A console that records warnings."""

    def __init__(self):
        super().__init__(quiet=True)
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture(scope="module")
def exported(trained_export):
    return trained_export


@pytest.fixture(scope="module", params=["path", "url"])
def source(request, exported):
    if request.param == "path":
        yield exported
        return
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from running_server import serving as running

    with running(exported) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def answer(exported):
    """Returns the outputs of the export itself."""
    signature = tf.saved_model.load(str(exported / "1")).signatures["classify"]
    return {
        name: value.numpy() for name, value in signature(**tensors(REQUEST)).items()
    }


def fitted(source, **options):
    return Classifier(source, **options).fit(*part(REQUEST, "support").values(), LABELS)


def test_rows_that_look_like_no_class_get_the_label_for_unknown(source, answer):
    plain = fitted(source).predict(REQUEST["queries"])
    for false_alarms in (0.0, 0.05, 0.5):
        classifier = fitted(source, unknown="none of these", false_alarms=false_alarms)
        given = classifier.predict(REQUEST["queries"])
        is_unknown = np.round(200 * answer["known"]) < 200 * false_alarms
        np.testing.assert_array_equal(given == "none of these", is_unknown)
        np.testing.assert_array_equal(given[~is_unknown], plain[~is_unknown])
    assert 0 < is_unknown.mean() < 1


def test_a_set_holds_what_is_plausible_and_the_answer(source, answer):
    classifier, queries = fitted(source), REQUEST["queries"]
    answers = classifier.predict(queries)
    sizes = []
    for coverage in (0.0, 0.5, 0.9, 0.913, 1.0):
        sets = classifier.predict_set(queries, coverage)
        most = np.floor(200 * (1 - coverage) + 1e-6)
        for row, (labels, mine) in enumerate(zip(sets, answers)):
            chosen = np.round(200 * answer["plausible"][row]) >= most
            assert set(labels) == {*np.array(["ant", "bee", "cat"])[chosen], mine}
        sizes.append(np.mean([len(labels) for labels in sets]))
    assert sizes == sorted(sizes) and sizes[-1] == 3 > sizes[0]
    assert classifier.predict_set(queries[:0]) == []


@pytest.mark.parametrize(
    "options,field",
    [
        ({"unknown": "bee"}, "unknown: expected a label of no class"),
        ({"unknown": -1}, "unknown: expected strings"),
        ({"unknown": "other", "false_alarms": 2}, "false_alarms: expected a number"),
        (
            {"unknown": "other", "false_alarms": "5 %"},
            "false_alarms: expected a number",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(exported, options, field):
    with pytest.raises(ValueError, match=field):
        fitted(exported, **options).predict(REQUEST["queries"])


def test_a_coverage_that_is_no_share_is_refused(exported):
    with pytest.raises(ValueError, match="coverage: expected a number from 0 to 1"):
        fitted(exported).predict_set(REQUEST["queries"], 90)


def test_what_was_fitted_to_no_validation_classes_says_so():
    classifier = fitted("ridge", unknown="other")
    for ask in (classifier.predict, classifier.predict_set):
        with pytest.raises(
            ValueError, match="source: expected an export that was fitted"
        ):
            ask(REQUEST["queries"])


def test_labels_that_are_numbers_have_a_number_for_unknown(exported):
    classifier = Classifier(exported, unknown=-1, false_alarms=0.3)
    classifier.fit(REQUEST["support"], REQUEST["labels"])
    given = classifier.predict(REQUEST["queries"])
    assert given.dtype.kind == "i" and set(given) == {-1, 0, 1, 2}
    assert "unknown=-1, false_alarms=0.3" in repr(classifier)
    assert classifier.get_params()["unknown"] == -1


def test_more_classes_than_were_tested_are_warned_of(source):
    request, expected = make_request(way=5, shot=1), "^5 classes; .* 3-way 1-shot epis"
    with pytest.warns(UserWarning, match=expected) as warned:
        Classifier(source).fit(request["support"], request["labels"])
    assert [each.filename for each in warned] == [__file__]


def test_more_examples_of_a_class_than_were_tested_are_warned_of(source):
    expected = r"^2 examples of a class; .* --test_way=3 --test_shot=2"
    with pytest.warns(UserWarning, match=expected):
        Classifier(source).fit(REQUEST["support"], REQUEST["labels"])


def test_a_server_warns_once_of_what_is_beyond_the_test(exported):
    pytest.importorskip("starlette", reason="the extra `serve` is not installed")
    from leo_tf.serving.rest_api import _compute

    console, model = Warned(), LocalModel(exported / "1")
    versions, served = Versions(exported, console), Served(1, model, {}, {})
    for way, shot, lines in [(3, 1, 0), (5, 2, 1), (9, 9, 1)]:
        inputs = part(make_request(way, shot), "support", "labels")
        body = {n: value.tolist() for n, value in inputs.items()}
        body = {"signature_name": "adapt", "inputs": body}
        body = json.dumps(body).encode()
        answer = _compute(served, body, None, versions.warn_beyond_test)
        assert answer.status_code == 200 and len(console.warned) == lines
        assert ("Warning" in answer.headers) == (way > 3)  # in every such answer
    expected = "version 1, shown once: 5 classes and 2 examples of a class; the model"
    assert expected in console.warned[0]


@pytest.mark.parametrize("fitted,said", [({"way": 4, "shot": 1}, "4-way"), (None, "")])
def test_without_a_test_the_validation_episodes_say_what_is_beyond(
    fitted, said, exported, tmp_path
):
    version = shutil.copytree(exported / "1", tmp_path / "1")
    metadata = json.loads((version / "export.json").read_text())
    metadata |= {"test_accuracy": None, "fitted_on_validation": fitted}
    (version / "export.json").write_text(json.dumps(metadata))
    warning = LocalModel(version).beyond_test(np.arange(5))
    assert said in warning and bool(said) == bool(warning)


@pytest.mark.filterwarnings("error")
def test_as_many_classes_as_were_tested_are_not(source):
    request = make_request(shot=1)
    Classifier(source).fit(request["support"], request["labels"])


LARGE = 2**60 + 1


@pytest.mark.parametrize(
    "labels,unknown",
    [
        (np.array([LARGE, 5], np.uint64), -1),
        (np.array([LARGE, 5]), -1.0),
        (np.array([True, False]), True),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), datetime(2020, 1, 1)),
        (
            np.array(["0001-01-01", "2020-01-02"], "M8[D]"),
            np.datetime64("2020-01-01T00:00:00.000000001"),
        ),
    ],
)
def test_no_label_is_changed_for_the_one_of_unknown(exported, labels, unknown):
    rows = REQUEST["support"][:2]
    with pytest.raises(ValueError, match="unknown: expected a label of no class"):
        Classifier(exported, unknown=unknown).fit(rows, labels)


def test_a_label_for_unknown_may_be_longer_and_another_date(exported):
    rows = REQUEST["support"][:2]
    for labels, unknown in (
        (np.array(["a", "b"]), "something else"),
        (np.array([b"a", b"b"]), b"something else"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), datetime(1970, 1, 1)),
    ):
        classifier = Classifier(exported, unknown=unknown, false_alarms=1.0)
        given = set(classifier.fit(rows, labels).predict(REQUEST["queries"]).tolist())
        assert {*np.array([unknown], labels.dtype.char).tolist()} & given or (
            unknown in given
        )


def test_false_alarms_are_rounded_to_the_safe_side(exported, answer):
    classifier = fitted(exported, unknown="other", false_alarms=0.0049)
    assert "other" not in classifier.predict(REQUEST["queries"])
