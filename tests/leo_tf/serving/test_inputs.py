"""Features and labels of many types: converted exactly, or refused."""

import datetime

import numpy as np
import pytest
from served_models import clusters, write_model

from leo_tf.serving.classifier import Classifier


class Frame:
    """The part of a DataFrame that the client uses."""

    def __init__(self, rows, columns=("a", "b", "c")):
        self.rows, self.columns = np.asarray(rows), list(columns)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("exported") / "1").parent


@pytest.fixture
def fitted(exported):
    support, labels = clusters()
    return Classifier(exported).fit(Frame(support), labels)


def swapped():
    support, labels = clusters()
    return Frame(support[:, ::-1], "cba"), labels


@pytest.mark.parametrize(
    "call",
    [lambda c, x, y: c.predict(x), lambda c, x, y: c.predict_proba(x),
     lambda c, x, y: c.decision_function(x), lambda c, x, y: c.score(x, y),
     lambda c, x, y: c.partial_fit(x, y)],
)  # fmt: skip
def test_columns_in_another_order_are_refused(fitted, call):
    before = fitted.support_
    with pytest.raises(ValueError, match=r"should match .*\nFeature names must be"):
        call(fitted, *swapped())
    assert fitted.support_ is before


def test_columns_of_other_names_are_named(fitted):
    support, labels = clusters()
    for columns, said in {
        "abx": "unseen at fit time:\n- x\n.*now missing:\n- c\n$",
        "ab": "now missing:\n- c\n$",
        "abcdefghi": "unseen at fit time:\n- d\n- e\n- f\n- g\n- h\n- ...\n$",
    }.items():
        with pytest.raises(ValueError, match=said):
            fitted.predict(Frame(np.ones([2, len(columns)]), columns))
    with pytest.raises(ValueError, match="names that are all text, received int, str"):
        fitted.fit(Frame(support, ["a", 1, "c"]), labels)


def test_names_go_with_the_classifier(fitted, exported, tmp_path):
    support, labels = clusters()
    fitted.save(tmp_path / "c.npz")
    loaded = Classifier.load(tmp_path / "c.npz", exported)
    for each in (fitted, loaded, loaded.remove_class(2)):
        assert each.feature_names_in_.tolist() == ["a", "b", "c"]
        assert each.feature_names_in_.dtype == object
        with pytest.raises(ValueError, match="same order"):
            each.predict(swapped()[0])
    assert fitted.predict(Frame(support)).tolist() == labels.tolist()
    assert not hasattr(fitted.fit(support, labels), "feature_names_in_")
    assert not hasattr(
        fitted.fit(Frame(support, range(3)), labels), "feature_names_in_"
    )
    begun = Classifier(exported).partial_fit(Frame(support), labels)
    with pytest.raises(ValueError, match="same order"):
        begun.partial_fit(*swapped())
    with np.load(tmp_path / "c.npz") as file:
        arrays = {**file, "feature_names": np.array(["a"])}
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(ValueError, match="expected a file written by"):
        Classifier.load(tmp_path / "c.npz", exported)


def test_other_files_are_no_saved_classifier(fitted, exported, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    fitted.save(tmp_path / "c.npz")
    whole = (tmp_path / "c.npz").read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 30):
        (tmp_path / f"{cut}.npz").write_bytes(whole[:cut])
    (tmp_path / "c.npz").unlink()
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match="expected a file written by"):
            Classifier.load(path, exported)
    with pytest.raises(FileNotFoundError):
        Classifier.load(tmp_path / "c.npz", exported)


def test_ragged_rows_are_refused(exported):
    with pytest.raises(ValueError, match=r"features: expected numbers .* ragged rows"):
        Classifier(exported).fit([[1.0, 2.0, 3.0], [1.0]], [0, 1])


def test_names_on_one_side_only_are_warned_of(fitted, exported):
    support, labels = clusters()
    with pytest.warns(UserWarning, match="X does not have valid feature names, but"):
        fitted.predict(support)
    bare = Classifier(exported).fit(support, labels)
    with pytest.warns(UserWarning, match="X has feature names, but Classifier was"):
        bare.predict(Frame(support))


def test_a_column_of_text_is_named(exported):
    rows = np.array([[1.0, 2, "old"], [3, None, 4]], object)
    with pytest.raises(ValueError, match=r"^features: .*str 'old' in the column 'c'"):
        Classifier(exported).fit(Frame(rows), [0, 1])
    with pytest.raises(ValueError, match="str 'old' in the column 2"):
        Classifier(exported).fit(rows, [0, 1])


KINDS = {
    "strings": ["0", "1"],
    "numbers": [0, 1],
    "booleans": [False, True],
    "bytes": [b"0", b"1"],
    "dates": [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)],
}


@pytest.mark.parametrize("fit", KINDS)
@pytest.mark.parametrize("given", KINDS)
def test_labels_of_another_kind_than_at_fit_are_refused(exported, fit, given):
    if fit == given:
        return
    rows, labels = [[0.0, 0, 1], [9, 0, 0]], KINDS[given]
    classifier = Classifier(exported).fit(rows, KINDS[fit])
    for call in (
        lambda: classifier.score(rows, labels),
        lambda: classifier.partial_fit(rows, labels),
        lambda: classifier.partial_fit(rows, KINDS[fit], classes=labels),
        lambda: classifier.remove_class(labels[0]),
    ):
        with pytest.raises(ValueError, match=r"^label.*: expected .*, received "):
            call()
    assert len(classifier.classes_) == 2


def test_a_class_that_is_not_there_is_told_from_those_that_are(exported):
    classifier = Classifier(exported).fit(np.eye(3), ["0", "1", "2"])
    with pytest.raises(ValueError, match="one of '0', '1', '2', received '3'"):
        classifier.remove_class("3")
    with pytest.raises(ValueError, match="expected strings, as at `fit`, received num"):
        classifier.remove_class(0)
    with pytest.raises(ValueError, match=r"^label"):
        classifier.remove_class(["0", "1", "2"])


TIMES = [datetime.datetime(2020, 1, 1, 12, 30, 1, 5), datetime.datetime(2019, 1, 1)]


@pytest.mark.parametrize(
    "labels", [KINDS["dates"], TIMES, [0.0, 1.0], [1, 0.0], [np.float32(2), 3]], ids=str
)
def test_dates_and_whole_floats_are_given_back(exported, labels, tmp_path):
    rows = [[0.0, 0, 1], [9, 0, 0]]
    classifier = Classifier(exported).fit(rows, labels)
    assert classifier.predict(rows).tolist() == labels
    assert classifier.score(rows, labels) == 1.0
    classifier.save(tmp_path / "c.npz")
    loaded = Classifier.load(tmp_path / "c.npz", exported)
    assert loaded.predict(rows).tolist() == labels
    with pytest.raises(ValueError, match="2 classes or more"):  # the label was found
        classifier.partial_fit(rows, labels).remove_class(labels[0])


@pytest.mark.parametrize(
    ("labels", "said"),
    [([np.nan, 1.0], "missing values"), (np.array([1, np.nan]), "missing values"),
     ([np.inf, 1.0], "infinity"), ([None, "a"], "missing values .*strings"),
     ([np.nan, "a"], "missing values .*strings"),
     (np.array(["2020-01-01", "NaT"], "datetime64[D]"), "missing values"),
     ([np.datetime64("NaT"), np.datetime64("2020-01-01")], "missing values"),
     ([TIMES[0].astimezone(datetime.timezone.utc), TIMES[1]], "without a time zone"),
     ([datetime.date(2020, 1, 1), "2020-01-01"], "dates and strings"),
     ([b"a\0", b"a"], r"can store, received b'a\\x00'"), (["a\0", "a"], "can store"),
     ([2**53 + 1, 0.0], "can store"), ([2**63 + 1, -1], "can store")],
    ids=str,
)  # fmt: skip
def test_labels_that_would_become_others_are_refused(exported, labels, said):
    with pytest.raises(ValueError, match=f"^labels: expected .*{said}"):
        Classifier(exported).fit([[0.0, 0, 1], [9, 0, 0]], labels)


def test_data_frames_and_series_of_pandas(exported):
    pandas = pytest.importorskip("pandas")
    support, numbers = clusters()
    frame = pandas.DataFrame(support, columns=["a", "b", "c"])
    stamps = pandas.to_datetime(
        ["2020-01-01", "2021-01-01 00:00:00.000000001", "2022"], format="ISO8601"
    )
    for names in (
        stamps,
        pandas.Index(["x", "y", "z"]),
        pandas.CategoricalIndex(list("zyx")),
        pandas.array([3, 4, 5], "Int64"),
    ):
        labels = pandas.Series(names[numbers])
        classifier = Classifier(exported).fit(frame, labels)
        assert (classifier.predict(frame) == labels).all()
        assert classifier.score(frame, labels) == 1.0
        missing = labels.where(labels.index != 0)
        with pytest.raises(ValueError, match="missing values"):
            classifier.fit(frame, missing)
    text = frame.assign(b=frame["b"].astype(object).where(frame.index != 1, "old"))
    with pytest.raises(ValueError, match="str 'old' in the column 'b'"):
        classifier.fit(text, labels)
    with pytest.raises(ValueError, match="same order"):
        classifier.predict(frame[["c", "b", "a"]])
    with pytest.raises(ValueError, match="without a time zone"):
        classifier.fit(frame, pandas.Series(stamps.tz_localize("UTC")[numbers]))
