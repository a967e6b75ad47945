"""Tests that foreign files are recognised, and that their conversion works."""

import collections
import json
import os
import pathlib
import pickle
import re

import numpy as np
import pytest

from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.sources import load_data
from leo_tf.errors import InputError

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "data_formats.md"
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = ["a", "a", "b", "b", "b", "c"]


def refused(path, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def follow(error: InputError, **names) -> None:
    """Runs the Python lines at the end of an error, as a user pastes them."""
    exec(error.hint.split("In Python: ")[1], names)


def by_class() -> dict:
    found = collections.defaultdict(list)
    for x, y in zip(X, Y):
        found[y].append(x)
    return found


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "content",
    [by_class(), dict(by_class()), {"x": X, "y": Y}, {"feat": X, "label": Y}, (X, Y)],
    ids=type,
)
def test_the_lines_for_a_pickle_make_a_file_that_is_read(tmp_path, content, protocol):
    path = tmp_path / "base_features.plk"
    path.write_bytes(pickle.dumps(content, protocol))
    error = refused(path)
    assert "Only if you trust the file" in error.hint
    if "Put the file's own names" in error.hint:  # too far behind to be seen
        error.hint = error.hint.replace('"y"', f'"{[*content][1]}"')
    follow(error)
    table = load(tmp_path / "train.npz")
    assert [table.class_names[label] for label in table.labels] == Y
    np.testing.assert_array_equal(table.embeddings, X)


def test_no_class_of_an_object_is_called_to_tell_what_a_pickle_is(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": [Trap()]}))
    assert "In Python: " in refused(tmp_path / "a.pkl").hint
    assert not (tmp_path / "made").exists()


def test_the_lines_for_json_make_a_file_that_is_read(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"X": X.tolist(), "y": Y}))
    follow(refused(tmp_path / "c.json"))
    assert load(tmp_path / "c.npz").class_names == ("a", "b", "c")
    np.testing.assert_array_equal(load(tmp_path / "c.npz").embeddings, X)


@pytest.mark.parametrize(
    ("name", "content", "found", "cure"),
    [
        ("a", b"PK\3\4" + b"\0" * 26 + b"archive/data.pkl", "PyTorch", "torch.load("),
        ("a.pth", b"\x05\x06", "PyTorch", "weights_only=True"),
        ("a", b"\x89HDF\r\n\x1a\n", "HDF5", "h5py.File("),
        ("a", b"MATLAB 5.0 MAT-file", "MATLAB", "loadmat("),
        ("a", b"MATLAB 7.3 MAT-file", "MATLAB 7.3", "h5py.File("),
        ("a", b"PAR1\x15", "Parquet", "read_parquet("),
        ("a", b"\x1f\x8b\x08\0", "compressed", "Unpack it"),
        ("a", b"version https://git-lfs.github.com/spec/v1\n", "LFS", "git lfs pull"),
        ("a.npz", b"\n<!DOCTYPE html>\n<html>", "web page", "Download it again"),
        ("a", b"", "an empty file", "run it again"),
        ("a", b"\x01\x02\x03", "begins with", "np.savez(path"),
    ],
)
def test_each_kind_of_file_is_named_with_the_next_step(
    tmp_path, name, content, found, cure
):
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert found in error.received and cure in error.hint
    if "In Python: " in error.hint:
        compile(error.hint.split("In Python: ")[1], name, "exec")


def test_arrays_of_other_names_that_can_mean_one_thing_only_are_read(tmp_path):
    path = tmp_path / "train.npz"
    for arrays in (
        {"X": X, "y": Y},
        {"features": X, "targets": Y},
        {"x": X, "labels": Y},
    ):
        np.savez(path, **arrays, other=[1])
        assert load(path).class_names == ("a", "b", "c")
        np.testing.assert_array_equal(load(path).embeddings, X)
    np.savez(path, X, Y)
    assert load(path).class_names == ("a", "b", "c")
    np.savez(path, X=X, x=X, y=Y)
    assert "arrays `embeddings` [rows, D] and `labels` [rows]" in refused(path).expected


def test_names_shapes_and_types_of_an_npz_file_have_a_line_that_mends_them(tmp_path):
    path = tmp_path / "train.npz"
    for arrays in (
        {"X": X, "x": X, "y": Y},
        {"X": X.reshape(6, 2, 2), "y": Y},
        {"embeddings": X.reshape(6, 2, 2), "labels": Y},
        {"embeddings": X, "labels": np.array(Y, object)},
        {"embeddings": X, "labels": np.array(Y)[:, np.newaxis]},
    ):
        np.savez(path, **arrays)
        follow(refused(path))
        table = load(path)
        assert table.embedding_size == 4 and table.class_names == ("a", "b", "c")


def test_an_array_of_more_axes_is_told_what_is_wanted(tmp_path):
    np.savez(tmp_path / "a.npz", X=X.reshape(6, 2, 2), y=Y)
    error = refused(tmp_path / "a.npz")
    assert error.where.endswith("`X`") and "[rows, D]" in error.expected
    assert ".reshape(6, 4)" in error.hint


def test_labels_of_a_file_may_be_whole_floats(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, embeddings=X, labels=[0.0, 0.0, 10.0, 10.0, 2.0, 2.0])
    assert load(path).class_names == ("0", "2", "10")
    np.savez(path, embeddings=X, labels=[0, 0, 1.5, 1, 2, 2])
    assert refused(path).received == "1.5 in row 2"


def test_numbers_that_begin_anew_in_each_file_are_made_distinct_by_the_lines(tmp_path):
    for split in ("train", "val", "test"):
        np.savez(tmp_path / f"{split}.npz", embeddings=X, labels=[0.0, 0, 1, 1, 2, 2])
    for _ in ("val", "test"):
        with pytest.raises(InputError, match="3 shared, first '0'") as caught:
            load_data(tmp_path)
        follow(caught.value)
    assert load_data(tmp_path)["test"].class_names == ("test0", "test1", "test2")


def test_a_directory_without_data_says_what_is_there(tmp_path):
    for i in range(7):
        (tmp_path / f"{i}.plk").touch()
    with pytest.raises(InputError) as caught:
        load_data(tmp_path)
    names = ", ".join(f"'{i}.plk'" for i in range(5))
    assert caught.value.received == f"{names} and 2 more"
    assert re.search("docs/data_formats.md", caught.value.hint)


def test_the_lines_of_the_page_from_what_you_have_make_data_that_is_read(
    tmp_path, monkeypatch
):
    page = DOCS.read_text("utf-8").split("## From what you have")[1].split("\n## ")[0]
    monkeypatch.chdir(tmp_path)
    content = collections.defaultdict(list, {0: list(X[:2]), 1: list(X[2:])})
    (tmp_path / "base_features.plk").write_bytes(pickle.dumps(content))
    lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(lines) == 2
    exec("".join(lines), {})
    assert load("train.npz").class_names == ("train0", "train1")
    np.testing.assert_array_equal(load("train.npz").embeddings, X)
