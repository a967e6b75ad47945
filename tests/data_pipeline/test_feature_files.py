"""Tests that files become tables, and that bad files are refused by name."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import load, save_npz
from leo_tf.errors import DiskError, InputError

_KEYS = ["0-b_1-b_1_x.jpg", "1-a-2-a-2_y", "2-b_1-b_1_z"]
_FEATURES = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


def _write_pickle(path, embeddings=_FEATURES, keys=_KEYS):
    path.write_bytes(pickle.dumps({"embeddings": embeddings, "keys": keys}, 2))
    return path


def _refused(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def test_loading_does_not_wait_for_tensorflow():
    code = "import data_pipeline, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_keys_of_another_form_are_refused_with_the_first_of_them(tmp_path):
    keys = ["0-a-a_1", "bad 1", "bad\n2", "bad 3", "bad 4"]
    path = _write_pickle(tmp_path / "a.pkl", np.ones((5, 2)), keys)
    message = _refused(path)
    assert "`keys`" in message and "index-CLASS-CLASS_rest" in message
    assert r"4 of another form, first 'bad 1', 'bad\n2', 'bad 3'." in message


def test_a_pickle_becomes_a_table_with_sorted_classes_and_rows_in_order(tmp_path):
    table = load(_write_pickle(tmp_path / "any.name"))
    assert table.class_names == ("a-2", "b_1")
    assert table.labels.tolist() == [1, 0, 1]
    assert table.names.tolist() == _KEYS
    np.testing.assert_array_equal(table.embeddings, _FEATURES)
    assert table.embeddings.dtype == np.float32


@pytest.mark.parametrize("given", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("kind", ["npz", "pickle"])
def test_any_float_is_converted_to_the_dtype_asked_for(given, kind, tmp_path):
    path = tmp_path / "file"
    if kind == "pickle":
        _write_pickle(path, _FEATURES.astype(given))
    else:
        with open(path, "wb") as file:
            features = np.asfortranarray(_FEATURES.astype(given))
            np.savez_compressed(file, embeddings=features, labels=[0, 1, 0])
    for dtype in ("float32", "float64"):
        table = load(path, dtype=dtype)
        assert table.embeddings.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(table.embeddings, _FEATURES)


@pytest.mark.parametrize(
    "labels, names, numbers",
    [
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        ([-3, 7, 0], ("-3", "0", "7"), [0, 2, 1]),
        (np.array([10, 2, 10], ">u8"), ("2", "10"), [1, 0, 1]),
        (["10", "2", "10"], ("2", "10"), [1, 0, 1]),
        (["10", "2", "x"], ("10", "2", "x"), [0, 1, 2]),
        (["01", "1", "1"], ("01", "1"), [0, 1, 1]),
        ([b"\xc3\xa9", b"e", b"e"], ("e", "é"), [1, 0, 0]),
    ],
)
def test_labels_are_numbers_or_names_and_set_the_order(
    labels, names, numbers, tmp_path
):
    np.savez(tmp_path / "a.npz", embeddings=_FEATURES, labels=labels)
    table = load(tmp_path / "a.npz")
    assert table.class_names == names
    assert table.labels.tolist() == numbers
    assert table.names is None


def test_each_split_of_a_file_of_several_is_read_by_its_name(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(
        path,
        embeddings_train=_FEATURES,
        keys_train=np.array(_KEYS, "S"),
        embeddings_test=_FEATURES[:2] * 2,
        keys_test=np.array(["0-c-c_1", "1-c-c_2"]),
    )
    assert load(path, split="train").class_names == ("a-2", "b_1")
    np.testing.assert_array_equal(load(path, "test").embeddings, _FEATURES[:2] * 2)
    assert "`split` to be one of 'test', 'train', received none" in _refused(path)
    assert "received 'val'" in _refused(path, split="val")


def test_a_split_asked_of_a_file_of_one_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=_FEATURES, labels=[0, 1, 0])
    for path in (tmp_path / "a.npz", _write_pickle(tmp_path / "a.pkl")):
        assert "'train'" in _refused(path, split="train")


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "empty"),
        (b"name,label\n", "rows of numbers and a class"),
        (b"\x93NUMPY\x01\x00", "undamaged"),
        (b"\x89HDF\r\n\x1a\n", "HDF"),
        # Begins as a pickle of protocol 0 may.
        (b"class,file\n", "rows of numbers and a class"),
    ],
)
def test_a_file_of_another_format_is_refused(content, found, tmp_path):
    (tmp_path / "a").write_bytes(content)
    assert found in _refused(tmp_path / "a")


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    assert "nothing there" in _refused(tmp_path / "none.npz")
    assert "directory" in _refused(tmp_path)


def test_the_number_of_keys_must_be_that_of_the_rows(tmp_path):
    path = _write_pickle(tmp_path / "a.pkl", keys=_KEYS[:2])
    assert "`keys`: 3 names, one per row of `embeddings`, received 2" in _refused(path)


_NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=5)


@settings(max_examples=60)
@given(data=st.data())
def test_what_save_npz_writes_load_gives_back(data, tmp_path_factory):
    rows = data.draw(st.integers(1, 8))
    size = data.draw(st.integers(1, 4))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool)
    features = data.draw(st.lists(floats, min_size=rows * size, max_size=rows * size))
    labels = data.draw(st.lists(_NAMES, min_size=rows, max_size=rows))
    names = st.lists(_NAMES, min_size=rows, max_size=rows, unique=True)
    names = data.draw(st.none() | names)
    class_names = data.draw(st.permutations(sorted(set(labels))))
    table = EmbeddingTable(
        np.reshape(features, (rows, size)),
        np.array([class_names.index(label) for label in labels]),
        class_names,
        None if names is None else np.array(names, object),
        dtype=dtype,
    )
    path = tmp_path_factory.mktemp("saved") / "table.npz"
    save_npz(path, table)
    again = load(path, dtype=dtype)
    np.testing.assert_array_equal(again.embeddings, table.embeddings)
    assert [again.class_names[label] for label in again.labels] == labels
    assert (None if again.names is None else again.names.tolist()) == names
    # From then on nothing changes, the order of the classes included.
    save_npz(path, again)
    assert load(path, dtype=dtype).digest == again.digest
    assert [file.name for file in path.parent.iterdir()] == ["table.npz"]


def test_a_name_that_numpy_would_shorten_is_refused(tmp_path):
    table = EmbeddingTable(_FEATURES, [0, 1, 1], ("a", "b\0"))
    with pytest.raises(InputError, match=r"'b\\x00'"):
        save_npz(tmp_path / "a.npz", table)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    table = EmbeddingTable(_FEATURES, [0, 1, 1], ("a", "b"))
    save_npz(path, table)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DiskError, match=r"a\.npz: .*No space left"):
        save_npz(path, table)
    assert load(path).digest and list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_is_made(tmp_path):
    table = EmbeddingTable(_FEATURES, [0, 1, 1], ("a", "b"))
    save_npz(tmp_path / "new" / "a.npz", table)
    assert load(tmp_path / "new" / "a.npz").digest
