"""The client: labels of any kind, added and removed examples, by path and by URL."""

import pickle
import shutil
import zipfile

import numpy as np
import pytest
from served_models import MAX_CLASSES, clusters, numpy_answers, write_model

from leo_tf.errors import RequestError
from leo_tf.serving import classifier as classifier_module
from leo_tf.serving.classifier import Classifier, NotFittedError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    write_model(directory / "1")
    return directory


@pytest.fixture(scope="module", params=["path", "url"])
def source(request, exported):
    if request.param == "path":
        yield exported
        return
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from running_server import serving as running

    with running(exported) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(("way", "rows"), [(2, 1), (3, 4), (5, 2)])
def test_answers_are_those_of_the_model(source, way, rows):
    support, labels = clusters(way, rows)
    queries = clusters(way, 3, seed=1)[0]
    probabilities, logits, classes = numpy_answers(support, labels, queries)
    classifier = Classifier(source).fit(support, labels)
    np.testing.assert_allclose(
        classifier.predict_proba(queries), probabilities, atol=1e-5
    )
    np.testing.assert_array_equal(classifier.predict(queries), classes)
    if way == 2:
        logits = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(
        classifier.decision_function(queries), logits, rtol=1e-4, atol=1e-4
    )


def test_classes_may_have_different_numbers_of_examples(source):
    support, labels = clusters(3, 4)
    keep = [0, 4, 5, 8, 9, 10, 11]
    support, labels = support[keep], labels[keep]
    order = np.random.default_rng(3).permutation(len(keep))
    expected = numpy_answers(support, labels, support)[0]
    classifier = Classifier(source).fit(support[order], labels[order])
    np.testing.assert_allclose(classifier.predict_proba(support), expected, atol=1e-5)


LABELS = {
    "strings": ["wolf", "ant", "bee"],
    "integers": [40, -7, 3],
    "booleans": [True, False],
    "bytes": [b"z", b"\xff", b"a"],
    "whole floats": [2.0, -1.0, 0.0],
    "dates": np.array(["2024-03-01", "2020-01-01", "2022-01-01"], "datetime64[D]"),
    "objects": np.array(["wolf", "ant", "bee"], object),
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
def test_labels_of_any_kind_come_back_sorted(exported, names, tmp_path):
    support, numbers = clusters(len(names), 2)
    labels = [names[number] for number in numbers]
    classifier = Classifier(exported).fit(support, labels)
    assert classifier.classes_.tolist() == sorted(np.asarray(names).tolist())
    predicted = classifier.predict(support)
    np.testing.assert_array_equal(predicted, np.asarray(labels))
    best = classifier.predict_proba(support).argmax(1)
    np.testing.assert_array_equal(classifier.classes_[best], predicted)
    classifier.save(tmp_path / "c.npz")
    loaded = Classifier.load(tmp_path / "c.npz", exported)
    np.testing.assert_array_equal(loaded.predict(support), predicted)


@pytest.mark.parametrize(
    "labels",
    [["a", 1, "a"], [True, 0, 1], [0.5, 1.0, 2.0], [None, "a", "b"], [np.nan, 1.0, 2.0],
     [[0, 1], [1, 0], [1, 1]], [2**70, 1, 0], "abc", [(1, 2), (3,), (1,)]],
    ids=repr,
)  # fmt: skip
def test_labels_of_several_kinds_or_none_are_refused(exported, labels):
    with pytest.raises(ValueError, match=r"^labels: expected .*, received "):
        Classifier(exported).fit(clusters(3, 1)[0], labels)


def same(one: Classifier, other: Classifier, queries):
    np.testing.assert_array_equal(one.classes_, other.classes_)
    np.testing.assert_array_equal(
        one.predict_proba(queries), other.predict_proba(queries)
    )


def test_partial_fit_adds_examples_and_classes(source):
    support, numbers = clusters(3, 4)
    labels = np.array(["a", "b", "a much longer name"])[numbers]
    first = [0, 1, 4]
    later = [i for i in range(12) if i not in first]
    classifier = Classifier(source).fit(support[first], labels[first])
    assert classifier.classes_.tolist() == ["a", "b"]
    classifier.partial_fit(support[later], labels[later])
    order = [*first, *later]
    same(classifier, Classifier(source).fit(support[order], labels[order]), support)


def test_partial_fit_begins_where_there_was_no_fit_and_keeps_to_classes(exported):
    support, labels = clusters(3, 4)
    begun = Classifier(exported).partial_fit(support, labels, classes=[0, 1, 2])
    same(begun, Classifier(exported).fit(support, labels), support)
    with pytest.raises(ValueError, match=r"^labels: .* `classes`, received 2"):
        begun.partial_fit(support, labels, classes=[0, 1])


def test_fit_forgets_what_was_before(exported):
    support, labels = clusters(3, 4)
    again = Classifier(exported).fit(*clusters(4, 2, seed=5)).fit(support, labels)
    same(again, Classifier(exported).fit(support, labels), support)


def test_a_class_is_removed_and_the_others_stay(source):
    support, labels = clusters(4, 3)
    classifier = Classifier(source).fit(support, labels).remove_class(1)
    kept = labels != 1
    same(classifier, Classifier(source).fit(support[kept], labels[kept]), support)
    with pytest.raises(ValueError, match="label: expected one of 0, 2, 3, received 1"):
        classifier.remove_class(1)
    classifier.remove_class(0)
    with pytest.raises(ValueError, match="labels: expected 2 classes or more"):
        classifier.remove_class(2)
    assert classifier.classes_.tolist() == [2, 3]


def bad_requests():
    support, labels = clusters(3, 2)
    nan = np.where(np.arange(3) == 1, np.nan, support)
    return {
        "one class": (lambda c: c.fit(support, labels * 0), "labels"),
        "too many classes": (lambda c: c.fit(*clusters(MAX_CLASSES + 1, 1)), "labels"),
        "too much support": (lambda c: c.partial_fit(*clusters(4, 3)), "support"),
        "nothing": (lambda c: c.fit(support[:0], labels[:0]), "labels"),
        "lengths": (lambda c: c.fit(support, labels[:5]), "labels"),
        "NaN": (lambda c: c.fit(nan, labels), "support"),
        "beyond float32": (
            lambda c: c.fit(np.float64(support) * 1e300, labels),
            "support",
        ),
        "NaN query": (lambda c: c.predict(nan), "queries"),
        "other size": (lambda c: c.fit(support[:, :2], labels), "support"),
        "other size later": (lambda c: c.partial_fit(support[:, :2], labels), "feat"),
        "other query size": (lambda c: c.predict(support[:, :2]), "features"),
        "one row": (lambda c: c.predict(support[0]), "features"),
        "text": (lambda c: c.predict([["a", "b", "c"]]), "features"),
        "other labels": (lambda c: c.partial_fit(support, list("aabbcc")), "labels"),
    }


@pytest.mark.parametrize("name", bad_requests())
def test_a_refusal_names_the_field_and_changes_nothing(source, name):
    support, labels = clusters(3, 2)
    classifier = Classifier(source).fit(support, labels)
    before = classifier.predict_proba(support)
    call, field = bad_requests()[name]
    with pytest.raises(ValueError, match=rf"^{field}.*: expected .*, received "):
        call(classifier)
    assert classifier.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(classifier.predict_proba(support), before)


def test_before_fit_it_says_so(exported):
    for call in (Classifier(exported).predict, Classifier(exported).predict_proba):
        with pytest.raises(NotFittedError, match="expected `fit` first"):
            call(clusters()[0])


def test_saved_and_loaded_it_answers_and_goes_on(source, tmp_path):
    support, labels = clusters(3, 2)
    classifier = Classifier(source).fit(support, labels)
    classifier.save(tmp_path / "mine")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    loaded = Classifier.load(tmp_path / "mine", source)
    same(loaded, classifier, support)
    assert loaded.support_accuracy_ == classifier.support_accuracy_ == 1.0
    more, more_labels = clusters(4, 1, seed=2)
    same(
        loaded.partial_fit(more, more_labels),
        classifier.partial_fit(more, more_labels),
        support,
    )


def test_a_version_that_is_not_complete_is_told(exported, tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match=r"a complete export, received .*7 without"):
        Classifier(tmp_path).fit(*clusters())


def test_a_file_that_is_no_saved_classifier_is_refused(exported, tmp_path):
    path = tmp_path / "c.npz"
    Classifier(exported).fit(*clusters()).save(path)
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    with zipfile.ZipFile(path) as file:
        assert all(name.endswith(".npy") for name in file.namelist())

    def refused(write):
        write()
        with pytest.raises(ValueError, match="expected a file written by"):
            Classifier.load(path, exported)

    refused(lambda: path.write_bytes(whole[: len(whole) // 2]))
    refused(lambda: path.write_bytes(b""))
    refused(lambda: path.write_text("text"))
    refused(lambda: np.savez(path, classifier=arrays["classifier"]))
    for name, value in {
        "classes": np.array(["a", None, 3], object),  # would be a pickle
        "support_labels": arrays["support_labels"][1:],
        "classifier": arrays["classifier"][1:],
        "support": arrays["support"][0],
        "support_health": arrays["support_health"][:1],
    }.items():
        refused(lambda n=name, v=value: np.savez(path, **{**arrays, n: v}))


class Model:
    """Nearest centroid whose classifier is turned, so that only it can use it."""

    def __init__(self, identity, parameters=0):
        self.identity, self.parameters = identity, parameters

    def __call__(self, signature, inputs):
        turn = np.roll(np.eye(3, dtype=np.float32), self.identity or 0, axis=0)
        pad = np.zeros([1, self.parameters], np.float32)
        known = {} if self.identity is None else {"model": np.int64(self.identity)}
        if signature == "adapt":
            ways = [inputs["support"][inputs["labels"] == i] for i in range(3)]
            mean = np.stack([rows.mean(axis=0) for rows in ways]) @ turn
            mean = np.concatenate([mean, pad.repeat(3, axis=0)], axis=1)
            health = {"support_loss": 0.0, "support_accuracy": 1.0}
            return {"classifier": mean, **health, **known}
        classifier = inputs["classifier"]
        if classifier.shape[1] != 3 + self.parameters:
            raise RequestError("classifier: expected shape [N, P], received another.")
        logits = inputs["queries"] @ (classifier[:, :3] @ turn.T).T
        likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        answers = {"logits": logits, "probabilities": likely}
        return {**answers, "classes": logits.argmax(axis=1), **known}


@pytest.mark.parametrize("parameters", [0, 2])
def test_of_another_model_it_answers_by_the_examples_adapted_again(
    monkeypatch, tmp_path, parameters
):
    model = Model(1)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    support, labels = np.eye(3, dtype=np.float32), ["a", "b", "c"]
    first = Classifier("http://a").fit(support, labels)
    first.save(tmp_path / "c.npz")
    kept = pickle.dumps(first)
    assert first.predict(support).tolist() == labels
    # A server changes its model; a process begins when it has another.
    model.identity, model.parameters = 2, parameters
    loaded = Classifier.load(tmp_path / "c.npz", "http://a")
    assert loaded.predict(support).tolist() == labels
    assert pickle.loads(kept).predict(support).tolist() == labels
    assert first.predict(support[:0]).tolist() == []
    assert first.predict(support).tolist() == labels
    fitted = Classifier("http://a").fit(support, labels).classifier_
    np.testing.assert_array_equal(first.classifier_, fitted)
    with pytest.raises(ValueError, match="features: expected"):
        first.predict(np.zeros([1, 4]))


def test_answers_of_several_models_are_never_mixed_and_an_endless_change_is_an_error(
    monkeypatch,
):
    model = Model(1)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    monkeypatch.setattr(classifier_module, "_NUMBERS_PER_REQUEST", 6)
    support, labels = np.eye(3, dtype=np.float32), ["a", "b", "c"]
    fitted, asked = Classifier("http://a").fit(support, labels), []

    class Replicas(Model):
        """Answers a request as one of two models, in turn or as told."""

        def __call__(self, signature, inputs):
            self.identity = self.turns.pop(0) if self.turns else 3 - self.identity
            asked.append(signature)
            return super().__call__(signature, inputs)

    model = Replicas(1)
    fitted.set_params(timeout=9.0)
    # The first part is of model 2; then all of 1, which adapted.
    model.turns = [2, 1, 1, 1]
    assert fitted.predict(support).tolist() == labels
    assert asked == ["predict", "adapt", "predict", "predict"]
    model.turns = []
    with pytest.raises(
        ConnectionError, match="answers from one model, received answers from"
    ):
        fitted.predict(support)


def test_threads_that_share_a_classifier_get_right_answers_while_a_server_changes(
    monkeypatch,
):
    model, support = Model(1), np.eye(3, dtype=np.float32)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    fitted = Classifier("http://a").fit(support, ["a", "b", "c"])
    call = Model.__call__

    def changing(self, signature, inputs):
        if signature == "predict":
            # Between question and answer the server changes, and another thread adapts.
            monkeypatch.setattr(Model, "__call__", call)
            model.identity = 2
            fitted._adapt_again()
        return call(self, signature, inputs)

    monkeypatch.setattr(Model, "__call__", changing)
    assert fitted.predict(support).tolist() == ["a", "b", "c"]


def test_of_the_same_model_nothing_is_adapted_again(monkeypatch, tmp_path):
    model, support = Model(1), np.eye(3, dtype=np.float32)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    fitted = Classifier("http://a").fit(support, ["a", "b", "c"])
    fitted.save(tmp_path / "c.npz")
    others = (
        Classifier.load(tmp_path / "c.npz", "b"),
        pickle.loads(pickle.dumps(fitted)),
    )
    fitted.set_params(false_alarms=0.1)
    monkeypatch.setattr(Classifier, "_adapt", lambda *unused: pytest.fail("adapted"))
    for each in (fitted, *others):
        assert each.predict(support).tolist() == ["a", "b", "c"]


def test_pictures_of_another_model_must_be_given_again(monkeypatch, tmp_path):
    model = Model(1)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    monkeypatch.setattr(
        classifier_module,
        "embedded",
        lambda model, values: np.eye(3, dtype=np.float32)[[int(v) for v in values]],
    )
    pictures = [b"0", b"1", b"2"]
    fitted = Classifier("http://a").fit(pictures, ["a", "b", "c"])
    assert fitted.predict(pictures).tolist() == ["a", "b", "c"]
    fitted.save(tmp_path / "c.npz")
    model.identity = 2
    for each in (fitted, Classifier.load(tmp_path / "c.npz", "http://a")):
        for call in (each.predict, lambda x, each=each: each.partial_fit(x, ["a"] * 3)):
            with pytest.raises(
                ValueError, match="source: expected the model that embed"
            ):
                call(pictures)
    assert fitted.fit(pictures, ["a", "b", "c"]).predict(pictures).tolist()[2] == "c"


def test_models_that_do_not_say_which_they_are_answer_as_before(monkeypatch):
    model = Model(None)
    monkeypatch.setattr(classifier_module, "connect", lambda *unused: model)
    support, labels = np.eye(3, dtype=np.float32), ["a", "b", "c"]
    assert Classifier("x").fit(support, labels).predict(support).tolist() == labels


def test_a_saved_closed_form_is_taken_by_another(tmp_path):
    support, labels = clusters(3, 4)
    Classifier("lda").fit(support, labels).save(tmp_path / "c.npz")
    found = Classifier.load(tmp_path / "c.npz", "ridge").predict_proba(support)
    mine = Classifier("ridge").fit(support, labels).predict_proba(support)
    np.testing.assert_array_equal(found, mine)


def test_a_model_written_anew_in_its_place_is_the_one_that_answers(tmp_path):
    support, labels = clusters(3, 4)
    write_model(tmp_path / "1")
    before = Classifier(tmp_path).fit(support, labels).decision_function(support)
    shutil.rmtree(tmp_path / "1")
    write_model(tmp_path / "1", scale=3.0)
    after = Classifier(tmp_path).fit(support, labels).decision_function(support)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-4)


def test_where_it_cannot_be_saved_the_path_is_named(exported, tmp_path):
    fitted = Classifier(exported).fit(*clusters(2, 1))
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}'"):
        fitted.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"/none/c\.npz'"):
        fitted.save(tmp_path / "none" / "c.npz")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"/file/c\.npz'"):
        fitted.save(tmp_path / "file" / "c.npz")
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))
