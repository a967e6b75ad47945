"""Tests that `load_data` checks a notebook's arrays, or says what is wrong."""

import fractions
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.glyphs import cache
from leo_tf.data_pipeline.sources import Data, load_data, write_data
from leo_tf.errors import DiskError, FlagError, InputError

ROWS, SIZE = 4, 5
X = np.random.default_rng(0).normal(size=(ROWS, SIZE))
WHOLE = np.arange(1, 1 + ROWS * SIZE).reshape(ROWS, SIZE)


def labels(split: str) -> list[str]:
    return [f"{split}{i}" for i in (1, 0, 1, 0)]


def arrays(**changes) -> dict:
    """Returns three splits of two classes, with another value for some of them."""
    splits = {name: (X + i, labels(name)) for i, name in enumerate(("train", "val"))}
    return {**splits, "test": (X - 1, labels("test")), **changes}


def config(**settings) -> Config:
    fits = {"way": 2, "shot": 1, "num_query": 1, "meta_batch_size": 2}
    return Config().replace(**{**fits, **settings})


class Frame:
    """A table of numbers that converts to NumPy as pandas's does."""

    def __init__(self, rows, dtype):
        self.rows, self.dtype = rows, dtype

    def __repr__(self):  # the same in every process: xdist compares names of tests
        return f"Frame({self.dtype})"

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, self.dtype if dtype is None else dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "x",
    [
        WHOLE,
        WHOLE.astype(np.uint8),
        WHOLE.astype(np.float16),
        WHOLE.astype(np.float32),
        WHOLE.astype(">f8"),
        np.asfortranarray(WHOLE.astype(float)),
        np.repeat(WHOLE, 2, axis=0)[::2],
        WHOLE.tolist(),
        tuple(map(tuple, WHOLE.tolist())),
        [np.float32(row) for row in WHOLE],
        tf.constant(WHOLE, tf.float32),
        tf.constant(WHOLE, tf.bfloat16),
        tf.Variable(WHOLE),
        Frame(WHOLE, float),
        Frame(WHOLE, object),
        np.ma.masked_array(WHOLE, mask=False),
        np.array([[fractions.Fraction(int(n)) for n in row] for row in WHOLE]),
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}",
)
def test_whatever_numpy_makes_a_matrix_of_is_taken(x, dtype):
    table = load_data({"train": (x, labels("train"))}, dtype=dtype)["train"]
    assert table.embeddings.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(table.embeddings, WHOLE)


@pytest.mark.parametrize(
    ("y", "names", "numbers"),
    [
        (["b", "a", "b", "a"], ("a", "b"), [1, 0, 1, 0]),
        (np.array(["b", "a", "b", "a"]), ("a", "b"), [1, 0, 1, 0]),
        (np.array(["b", "a", "b", "a"], object), ("a", "b"), [1, 0, 1, 0]),
        (np.array([b"b", "ä".encode(), b"b", b"c"]), ("b", "c", "ä"), [0, 2, 0, 1]),
        (tf.constant(["b", "a", "b", "a"]), ("a", "b"), [1, 0, 1, 0]),
        ([10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0]),
        (np.array([10, 9, 10, 9], np.uint8), ("9", "10"), [1, 0, 1, 0]),
        (np.array([10, 9, 10, 9], object), ("9", "10"), [1, 0, 1, 0]),
        ([np.int64(10), np.int32(9), 10, 9], ("9", "10"), [1, 0, 1, 0]),
        (tf.constant([10, 9, 10, 9]), ("9", "10"), [1, 0, 1, 0]),
        (Frame([10, 9, 10, 9], object), ("9", "10"), [1, 0, 1, 0]),
        ([0.0, 10.0, 0.0, 10.0], ("0", "10"), [0, 1, 0, 1]),
        (np.float32([9, 10, 9, 10]), ("9", "10"), [0, 1, 0, 1]),
        ([-1, 3, -1, 3], ("-1", "3"), [0, 1, 0, 1]),
        (["01", "1", "01", "1"], ("01", "1"), [0, 1, 0, 1]),
    ],
    ids=str,
)
def test_labels_are_integers_or_text_and_classes_in_the_order_of_their_names(
    y, names, numbers
):
    table = load_data({"train": (X, y)})["train"]
    assert table.class_names == names
    assert table.labels.tolist() == numbers
    assert table.names is None and table.images is None


def test_an_embedding_table_is_taken_with_its_names_and_pictures_classes_in_order():
    images = np.arange(ROWS * 4, dtype=np.uint8).reshape(ROWS, 2, 2)
    table = EmbeddingTable(
        X, np.array([0, 1, 0, 1]), ("b", "a"), np.array(list("wxyz")), images, "mine"
    )
    found = load_data({"val": table})["val"]
    assert found.class_names == ("a", "b") and found.labels.tolist() == [1, 0, 1, 0]
    assert found.names.tolist() == list("wxyz") and found.source == "mine"
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.embeddings, np.float32(X))


@pytest.mark.parametrize(
    ("source", "where", "expected", "received"),
    [
        ({}, "splits of data", "some of train, val, test", "none"),
        ({"training": (X, [])}, "splits of data", "train, val, test", "'training'"),
        ({0: (X, [])}, "splits of data", "train, val, test", "0"),
        (5, "`source` of data", "a mapping of splits to arrays, a path, or", "int"),
        ([X, X], "`source` of data", "a mapping of splits to arrays", "list"),
        ("", "`source` of data", "a path, or None", "''"),
        ({"val": X}, "arrays (val)", "a pair (x, y)", "ndarray"),
        ({"val": (X,)}, "arrays (val)", "a pair (x, y)", "tuple"),
        ({"val": (X, [], [])}, "arrays (val)", "a pair (x, y)", "tuple"),
    ],
)
def test_what_is_no_data_is_refused_in_three_parts(source, where, expected, received):
    with pytest.raises(InputError) as caught:
        load_data(source)
    error = caught.value
    assert error.where == where and expected in error.expected
    assert received in error.received


class Sparse:
    """A matrix that SciPy keeps sparse."""

    shape = (ROWS, SIZE)

    def __repr__(self):
        return "Sparse()"

    def toarray(self):
        return X


@pytest.mark.parametrize(
    ("x", "received", "cure"),
    [
        (np.ones((4, 8, 8)), "shape (4, 8, 8)", "x.reshape(4, 64)"),
        (np.ones((4, 3, 8, 8)), "shape (4, 3, 8, 8)", "x.reshape(4, 192)"),
        (np.ones(4), "shape (4,)", ""),
        (np.float64(3), "shape ()", ""),
        (None, "shape ()", ""),
        (X.astype(complex), "dtype complex128", ""),
        (X.astype("datetime64[s]"), "dtype datetime64[s]", ""),
        (np.array([["1", "2"]] * 4), "dtype <U1", ""),
        ([[1, 2], [3]] * 2, "inhomogeneous", ""),
        ([["a", 2.0]] * 4, "dtype <U", ""),
        (Frame([["a", 2.0]] * 4, object), "could not convert string to float", ""),
        (
            np.array([[1, None]] * 4),
            "rows 0, 1, 2 and 1 or more others are non-finite",
            "keep = ",
        ),
        (np.ma.masked_equal(WHOLE, 3), "masked ones", ""),
        (Sparse(), "a sparse Sparse", "x.toarray()"),
        (np.where(WHOLE == 7, np.nan, WHOLE), "row 1 is non-finite", "keep = "),
        (np.where(WHOLE == 7, 1e300, WHOLE), "row 1 is non-finite", "keep = "),
        (np.where(WHOLE > 15, 0, WHOLE), "row 3 is all zeros", "keep = "),
        (np.ones((0, 5)), "(0, 5)", ""),
        (np.ones((4, 0)), "(4, 0)", ""),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_features_that_are_no_rows_of_finite_numbers_are_refused(x, received, cure):
    y = [] if getattr(x, "shape", ())[:1] == (0,) else labels("test")
    with pytest.raises(InputError) as caught:
        load_data({"test": (x, y)})
    error = caught.value
    assert error.where == "arrays (test): `embeddings`"
    assert received in error.received and cure in error.hint
    assert bool(cure) == bool(error.hint) and "\n" not in str(error)


def test_a_cure_for_pictures_works():
    pictures = np.random.default_rng(1).random((4, 8, 8))
    with pytest.raises(InputError) as caught:
        load_data({"test": (pictures, labels("test"))})
    advised = eval(caught.value.hint.split(" makes")[0], {"x": pictures})
    assert load_data({"test": (advised, labels("test"))})["test"].embedding_size == 64


@pytest.mark.parametrize(
    ("y", "received", "cure"),
    [
        (["a", "b", "a"], "3", ""),
        ([], "0", ""),
        (np.array([[0], [1], [0], [1]]), "shape (4, 1)", "y.ravel()"),
        (np.eye(4), "shape (4, 4)", "argmax(axis=1)"),
        ("abab", "shape ()", "y.ravel()"),
        (None, "shape ()", "y.ravel()"),
        ([0.0, 1.0, 0.5, 1.5], "0.5 in row 2", "left out"),
        (np.float32([0, 1, 0, np.nan]), "nan in row 3", "left out"),
        ([True, False, True, False], "True, a bool", ""),
        (np.array([True, False, True, False]), "True, a bool", ""),
        ([1, "a", 1, "a"], "'a', a str", ""),
        (["a", None, "a", "b"], "'a', a str", ""),
        ([{1}, {2}, {1}, {2}], "{1}, a set", ""),
    ],
    ids=str,
)
def test_labels_that_are_no_class_for_each_row_are_refused(y, received, cure):
    with pytest.raises(InputError) as caught:
        load_data({"train": (X, y)})
    error = caught.value
    assert error.where == "arrays (train): `labels`"
    assert error.received.startswith(received)
    assert cure in error.hint and bool(cure) == bool(error.hint)


def test_a_class_of_two_splits_is_refused_naming_both():
    twice = arrays(test=(X, ["train0", "x", "x", "train0"]))
    with pytest.raises(InputError) as caught:
        load_data(twice)
    assert str(caught.value) == (
        "arrays (test): classes: expected no class of arrays (train), received 1 "
        "shared, first 'train0'."
    )


def test_numbers_that_begin_anew_in_each_split_are_refused_and_the_cure_works():
    y = np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match="2 shared, first '0', '1'") as caught:
        load_data({"train": (X, y), "test": (X, y)})
    advised = caught.value.hint.split("labels = ")[1].rstrip(".")
    cured = {
        split: (X, eval(advised.replace("train", split), {"labels": y}))
        for split in ("train", "test")
    }
    assert load_data(cured)["test"].class_names == ("test0", "test1")


def test_splits_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(val\).*5 as in arrays \(train\).*D = 4"):
        load_data(arrays(val=(X[:, :4], labels("val"))))


def test_more_rows_than_a_file_may_hold_are_refused_before_anything_is_trained(
    monkeypatch,
):
    monkeypatch.setattr("leo_tf.data_pipeline.formats.names._FREE_ROWS", ROWS - 1)
    with pytest.raises(InputError, match=r"128 bytes per row .* 4 rows of 20 bytes"):
        load_data(arrays())
    wide = np.random.default_rng(0).normal(size=(ROWS, 32))
    assert len(load_data({"train": (wide, labels("train"))})) == 1


def test_data_is_a_mapping_in_the_order_of_splits_and_says_what_it_holds():
    data = load_data(dict(reversed(arrays().items())))
    assert list(data) == ["train", "val", "test"] and len(data) == 3
    assert "val" in data and "valid" not in data
    found = "train: 2 classes x 2 examples, val: 2 classes x 2 examples"
    assert repr(data).startswith(f"Data('arrays', {found}")
    with pytest.raises(AttributeError):
        data.in_memory = False


def test_what_becomes_of_an_array_later_changes_nothing():
    x = X.astype(np.float32)
    data = load_data({"train": (x, labels("train"))})
    x[:] = 0
    np.testing.assert_array_equal(data["train"].embeddings, np.float32(X))


@pytest.mark.parametrize(
    ("options", "name"), [({}, "arrays"), ({"dataset_name": "mine"}, "mine")]
)
def test_settings_of_arrays_name_no_path(options, name):
    data = load_data(arrays(), **options)
    assert data.in_memory
    settings = data.settings()
    assert settings == {
        "dataset_name": name,
        "data_path": "",
        "embedding_crop": "center",
        "trust_data_files": False,
        "val_classes": 0,
        "class_split": "",
        "class_folds": 0,
        "fold": None,
        "split_seed": 0,
    }
    assert not Config().replace(**settings).data.is_embedded


def test_settings_of_a_path_read_the_same_data_again_from_anywhere(
    tiny_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_data)
    data = load_data("tiny")
    monkeypatch.chdir(tmp_path)
    assert not data.in_memory
    again = load_data(pathlib.Path(tiny_data), dataset_name="tiny")
    assert data.settings()["data_path"] == str(tiny_data / "tiny")
    read = config().replace(**data.settings())
    for found in (again, dataset.load(read)):
        for name in ("train", "val", "test"):
            assert found[name].digest == data[name].digest


@pytest.mark.parametrize("path", ["tiny.npz", "~/tiny.npz"])
def test_a_data_set_without_a_name_has_that_of_its_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = ("train", "val", "test")
    found = {f"embeddings_{key}": np.float32(X) for key in keys}
    named = {f"keys_{k}": [f"{i}-{k}-{k}_{i}" for i in range(ROWS)] for k in keys}
    np.savez(tmp_path / "tiny.npz", **found, **named)
    data = load_data(path)
    assert data.settings()["dataset_name"] == "tiny"
    assert data["val"].class_names == ("val",)


def test_a_path_without_data_is_refused_by_its_name(tmp_path):
    message = "nowhere: expected a directory or file of features"
    with pytest.raises(InputError, match=message):
        load_data(tmp_path / "nowhere")


def test_nothing_is_the_embedded_glyphs(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.DIRECTORY_VARIABLE, str(tmp_path))
    glyphs = "leo_tf.data_pipeline.glyphs.dataset"
    small = {"train": ("OGHAM",), "test": ("TIFINAGH",), "val": ("NKO",)}
    monkeypatch.setattr(f"{glyphs}.SCRIPTS", small)
    monkeypatch.setattr(f"{glyphs}.EXAMPLES_PER_CLASS", 2)
    data = load_data()
    assert not data.in_memory and data.source.is_embedded
    assert data["test"].embedding_size == 640 and data["test"].images is not None
    assert dataset.load(config(), ["test"])["test"].digest == data["test"].digest
    double = dataset.load(config(dtype="float64"), ["val"], data)["val"]
    assert double.digest == dataset.load(config(dtype="float64"), ["val"])["val"].digest


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (
            {"dataset_name": "mine"},
            "--data_path: expected the directory or file of m",
        ),
        ({"dataset_name": "a/b"}, "--dataset_name"),
        ({"embedding_crop": "left"}, "--embedding_crop"),
        ({"dtype": "float16"}, "--dtype"),
        ({"split_seed": 3}, "--split_seed: expected --class_split or --class_folds"),
    ],
)
def test_a_setting_that_names_no_data_is_refused(options, flag):
    with pytest.raises(FlagError, match=flag):
        load_data(**options)


@pytest.mark.parametrize("kind", ["glyphs", "arrays", "all in one", "file", "splits"])
def test_a_crop_is_refused_of_data_without_crops(tmp_path, kind):
    write_data(load_data(arrays()), tmp_path / "of" / "splits")
    rows = tuple(np.concatenate(both) for both in zip(*arrays().values(), strict=True))
    np.savez(tmp_path / "file.npz", embeddings=rows[0], labels=rows[1])
    source = {
        "glyphs": None,
        "arrays": arrays(),
        "all in one": rows,
        "file": tmp_path / "file.npz",
        "splits": tmp_path / "of" / "splits",
    }[kind]
    options = {"class_split": "0.4,0.3,0.3"} if kind in ("all in one", "file") else {}
    load_data(source, **options)
    expected = "--embedding_crop: expected center, received multiview"
    with pytest.raises(FlagError, match=expected):
        load_data(source, embedding_crop="multiview", **options)


def test_a_configuration_that_names_no_place_is_refused():
    with pytest.raises(FlagError, match=r"--data_path: .* of arrays, received nothing"):
        dataset.load(config(dataset_name="arrays"))


def digests(splits) -> dict[str, str]:
    return {name: split.digest for name, split in splits.items()}


@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("asked", ["float32", "float64"])
@pytest.mark.parametrize("train_on_val", [False, True])
def test_written_arrays_are_read_again_as_the_same_data(
    tmp_path, given, asked, train_on_val
):
    numbers = (X, np.array([11, 2, 11, 2]))
    names = np.array(["ä/1", "b" * 300, "", "z"], object)
    table = EmbeddingTable(X + 3, np.array([0, 1, 0, 1]), ("b", "a"), names)
    data = load_data(arrays(train=numbers, test=table), dtype=given)
    write_data(data, tmp_path / "new" / "data")
    assert {p.name for p in (tmp_path / "new" / "data").iterdir()} == {
        *("train.npz", "val.npz", "test.npz")
    }
    wanted = config(dtype=asked, train_on_val=train_on_val)
    read = wanted.replace(
        **{**data.settings(), "data_path": str(tmp_path / "new" / "data")}
    )
    trained, again = dataset.load(wanted, data=data), dataset.load(read)
    assert digests(trained) == digests(again)
    for name in trained:
        mine, theirs = trained[name].table.features, again[name].table.features
        assert mine.dtype == asked
        np.testing.assert_array_equal(mine, theirs)


def test_written_data_is_in_our_documented_format(tmp_path):
    data = load_data(arrays())
    write_data(data, tmp_path)
    with np.load(tmp_path / "val.npz") as file:  # no pickle in it
        assert set(file.files) == {"embeddings", "labels"}
        assert file["labels"].tolist() == labels("val")
    assert load(tmp_path / "val.npz").digest == data["val"].digest
    assert load_data(tmp_path)["test"].digest == data["test"].digest


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    write_data(load_data(arrays()), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*unused, **unused_too):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DiskError, match=r"train\.npz.*No space left"):
        write_data(load_data(arrays(train=(2 * X, labels("train")))), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_what_is_wanted_of_the_data_is_prepared():
    data = load_data({"test": arrays()["test"]})
    assert list(dataset.load(config(), ["test"], data)) == ["test"]


@pytest.mark.parametrize(
    ("given", "settings", "wanted", "expected"),
    [
        (["train"], {}, ["train", "val", "test"], "train, val, test"),
        (["train", "test"], {"train_on_val": True}, ["train"], "train, val"),
        (["train", "val"], {}, ["test"], "test"),
    ],
)
def test_a_split_that_is_missing_is_told_when_it_is_wanted(
    given, settings, wanted, expected
):
    data = load_data({name: arrays()[name] for name in given})
    with pytest.raises(InputError) as caught:
        dataset.load(config(**settings), wanted, data)
    assert caught.value.expected == expected
    assert caught.value.received == ", ".join(given)
    assert "selects the best step on val" in caught.value.hint


def test_episodes_that_do_not_fit_the_arrays_are_refused():
    with pytest.raises(InputError, match=r"arrays \(train\): `labels`.*1 \+ 2"):
        dataset.load(config(num_query=2), data=load_data(arrays()))


def test_data_counts_more_than_what_the_configuration_names(tiny_data):
    other = config(data_path=str(tiny_data), dataset_name="tiny")
    found = dataset.load(other, data=load_data(arrays()))
    assert found["train"].class_names == ("train0", "train1")
    assert str(found["train"]) == "train: 2 classes x 2 examples, arrays (train)"


def test_in_another_precision_files_are_read_anew_and_arrays_converted(tmp_path):
    exact = {name: (X / 3, labels(name)) for name in ("train", "val", "test")}
    write_data(load_data(exact, dtype="float64"), tmp_path)
    double = config(dtype="float64")
    split = dataset.load(double, ["test"], load_data(tmp_path))["test"]
    expected = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(split.table.features, expected, rtol=1e-14)
    rounded = dataset.load(double, ["test"], load_data(exact))["test"].table.features
    assert rounded.dtype == tf.float64
    np.testing.assert_allclose(rounded, expected, rtol=1e-6)
    assert np.abs(rounded - expected).max() > 1e-12


def test_data_is_loaded_without_tensorflow(tmp_path):
    code = """
import sys
from leo_tf.data_pipeline.sources import load_data, write_data
pairs = {s: ([[1, 2], [3, 4]], [f"{s}0", f"{s}1"]) for s in ("train", "val", "test")}
write_data(load_data(pairs), sys.argv[1])
print(load_data(sys.argv[1]), "tensorflow" in sys.modules)
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, os.fspath(tmp_path / "mine")],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.stdout.startswith("Data('mine', train: 2 classes x 1"), done.stderr
    assert done.stdout.endswith("False\n")


def test_data_can_be_made_by_hand_of_tables():
    tables = dict(load_data(arrays()))
    made = Data(tables, load_data(arrays()).source, in_memory=True)
    assert dataset.load(config(), data=made).keys() == tables.keys()


def names_of(data) -> dict:
    return {split: set(data[split].class_names) for split in data}


def many(split: str, classes: int = 6) -> tuple:
    y = [f"{split}{i % classes}" for i in range(4 * classes)]
    return np.random.default_rng(len(split)).normal(size=(len(y), SIZE)), y


def test_classes_of_train_are_held_out_for_val_the_same_from_arrays_and_files(tmp_path):
    given = {"train": many("train"), "test": many("test")}
    data = load_data(given, val_classes=2)
    assert list(data) == ["train", "val", "test"]
    assert data.settings()["val_classes"] == 0  # what is kept of it has a val
    found = names_of(data)
    assert [len(names) for names in found.values()] == [4, 2, 6]
    assert found["train"] | found["val"] == set(given["train"][1])
    for split, (x, y) in given.items():
        order = np.random.default_rng(5).permutation(len(y))  # rows in any order
        np.savez(
            tmp_path / f"{split}.npz", embeddings=x[order], labels=np.array(y)[order]
        )
    read = load_data(tmp_path, val_classes=2)
    assert read.settings()["val_classes"] == 2 and names_of(read) == found
    settings = config(**read.settings())
    for seed in (0, 7):
        splits = dataset.load(settings.replace(seed=seed))
        assert names_of(splits) == found
        assert splits["val"].digest == read["val"].digest
    assert names_of(dataset.load(settings, ["val"])) == {"val": found["val"]}
    x, y = given["train"]
    rows = {name: x[[label == name for label in y]] for name in found["val"]}
    val = load_data(given, val_classes=2)["val"]
    for number, name in enumerate(val.class_names):
        mine = val.embeddings[val.labels == number]
        np.testing.assert_array_equal(mine, np.float32(rows[name]))


def test_what_is_held_out_is_said(capsys):
    load_data(
        {"train": many("train"), "test": many("test")},
        val_classes=1,
        console=Console(),
    )
    assert "1 of 6 classes of train are val: 'train" in capsys.readouterr().err


def test_a_missing_val_names_the_setting_and_a_val_that_is_there_refuses_it(tmp_path):
    given = {"train": many("train"), "test": many("test")}
    for split, (x, y) in given.items():
        np.savez(tmp_path / f"{split}.npz", embeddings=x, labels=y)
    with pytest.raises(InputError, match=r"val\.npz: .* --val_classes=N moves N"):
        load_data(tmp_path)
    with pytest.raises(InputError, match=r"load_data\(\.\.\., val_classes=N\)"):
        dataset.load(config(), data=load_data(given))
    with pytest.raises(FlagError, match=r"--val_classes: expected below 6, .* 6"):
        load_data(tmp_path, val_classes=6)
    x, y = many("val")
    np.savez(tmp_path / "val.npz", embeddings=x, labels=y)
    for source in (tmp_path, {**given, "val": (x, y)}, None):
        with pytest.raises(FlagError, match="Leave --val_classes out"):
            load_data(source, val_classes=2)


def test_one_file_of_splits_without_val_has_classes_held_out(tmp_path):
    arrays = {}
    for split in ("train", "test"):
        x, y = many(split)
        arrays[f"embeddings_{split}"] = x
        arrays[f"keys_{split}"] = [f"{i}-{name}-{name}_{i}" for i, name in enumerate(y)]
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="--val_classes=N moves N"):
        load_data(path)
    data = load_data(path, val_classes=2)
    assert [len(names) for names in names_of(data).values()] == [4, 2, 6]
    assert not names_of(data)["train"] & names_of(data)["val"]
    assert set(data["val"].names) < set(arrays["keys_train"])


def test_a_fold_of_the_embedded_data_is_refused():
    with pytest.raises(FlagError, match="--fold: expected --class_folds with it"):
        load_data(fold=2)
