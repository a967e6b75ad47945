"""Arrays of .npy and safetensors files and tables in text become the same tables."""

import json
import struct

import numpy as np
import pytest

from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.sources import load_data
from leo_tf.errors import InputError

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = ["b", "a", "b", "10", "a", "b"]
CODES = np.array([3, 0, 3, 10, 0, 3])


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def is_whole(table, classes=Y) -> bool:
    np.testing.assert_array_equal(table.embeddings, X)
    return [table.class_names[label] for label in table.labels] == list(classes)


# .npy


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("X.npy", "y.npy"),
        ("X_train.npy", "y_train.npy"),
        ("features.npy", "labels.npy"),
        ("train.npy", "train_labels.npy"),
        ("train.npy", "train_y.txt"),
        ("embeddings_val.npy", "labels_val.csv"),
    ],
)
def test_an_array_has_its_labels_beside_it(tmp_path, name, labels):
    np.save(tmp_path / name, X)
    if labels.endswith(".npy"):
        np.save(tmp_path / labels, Y)
    else:
        (tmp_path / labels).write_text(
            "label\n" * labels.endswith("csv") + "\n".join(Y)
        )
    assert is_whole(load(tmp_path / name))


def test_an_array_may_be_fortran_ordered_and_its_labels_numbers(tmp_path):
    np.save(tmp_path / "X.npy", np.asfortranarray(X.astype(">f8")))
    np.save(tmp_path / "y.npy", CODES.astype(float))
    assert is_whole(load(tmp_path / "X.npy"), map(str, CODES))


def test_labels_that_are_missing_doubled_or_too_few_are_refused(tmp_path):
    np.save(tmp_path / "train.npy", X)
    np.save(tmp_path / "labels.npy", Y)  # whose?
    message = refused(tmp_path / "train.npy")
    assert "one of train_labels.npy, train_labels.csv, train_labels.txt, " in message
    np.save(tmp_path / "X.npy", X)
    (tmp_path / "y.txt").write_text("\n".join(Y))
    assert "'y.txt' and 'labels.npy'" in refused(tmp_path / "X.npy")
    (tmp_path / "labels.npy").unlink()
    for text, said in (("a\nb\n", "received 2"), ("a\n" * 99, "received 7 or more")):
        (tmp_path / "y.txt").write_text(text)
        assert (
            f"y.txt: expected 6 labels, one per row of the features, {said}"
            in refused(tmp_path / "X.npy")
        )


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (X.reshape(6, 2, 2), r"\[rows, D\], .*\.reshape\(6, 4\)"),
        (np.arange(6), r"floats, received dtype .*astype\('float32'\)"),
        (np.array([{}] * 6), "Only if you trust the file"),
        (np.zeros((0, 4)), "not empty"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_a_line_that_mends_it(
    tmp_path, array, said
):
    np.save(tmp_path / "X.npy", array, allow_pickle=True)
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(InputError, match=said):
        load(tmp_path / "X.npy")


def test_a_directory_of_arrays_a_split_is_a_data_set(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        np.save(tmp_path / f"{split}.npy", X)
        np.save(tmp_path / f"{split}_labels.npy", CODES + 100 * number)
    data = load_data(tmp_path)
    assert data.source.dataset_name == tmp_path.name
    assert data["test"].class_names == ("200", "203", "210")
    with pytest.raises(InputError, match="--class_split"):
        load_data(tmp_path / "train.npy")
    named = load_data(tmp_path / "val.npy", class_folds=3, fold=0)
    assert named.source.dataset_name == "val"


# Text


def text_of(delimiter=",", header=True) -> str:
    lines = [delimiter.join(["f0", "label", "f1", "f2", "f3"])] if header else []
    for x, y in zip(X.tolist(), Y):
        cells = [x[0], y, *x[1:]] if header else [*x, y]
        lines.append(delimiter.join(map(str, cells)))
    return "\n".join(lines)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a"])
def test_a_table_in_text_is_read(tmp_path, delimiter, header, name):
    text = text_of(delimiter, header)
    (tmp_path / name).write_text(text)
    assert is_whole(load(tmp_path / name))
    (tmp_path / name).write_text("\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n")
    assert is_whole(load(tmp_path / name))
    assert load(tmp_path / name, dtype="float64").embeddings.dtype == np.float64


def test_row_numbers_without_a_name_are_no_feature(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(X).assign(label=Y).to_csv(tmp_path / "a.csv")
    assert is_whole(load(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f,g,label\n1,x,a\n", "line 2, column 'g': expected a number, received 'x'"),
        ("f,label\n1,a\n1\n", "line 3: expected 2 columns, received 1"),
        ("f,label\n1, \n", "line 2: expected a class"),
        (
            "f,g\n1,a\n",
            "one column of the class, named one of label, class, y, target",
        ),
        ("y,label\n1,a\n", "line 1: expected one column of the class"),
        ("label,\na,1\n", "columns of numbers"),
        ("f,label\n", "expected rows of numbers and a class, received no row"),
        ("1,2,0.5\n1,3,2\n", "'0.5' in column 3. Is the class in another column?"),
        ("1,2,a\nnan,3,a\n", "row 1 is non-finite"),
        ("1,2,a\n0,0,a\n", "row 1 is all zeros"),
        ("1,2,a\n" + "1," * 300_000, "line 2: expected less than 524288 bytes"),
        (
            '1,2,a\n1,2,"' + "x\n" * 90_000,
            "a well-formed CSV table, received 'field larger",
        ),
        ('"a","b";x\n', "a well-formed CSV table, received"),
        (b"1,2,a\n1,2,\xff\n", "a table in UTF-8, received \"'utf-8' codec"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_its_line(tmp_path, text, said):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "a.csv").write_bytes(content)
    assert said in refused(tmp_path / "a.csv")


# safetensors


def tensors(**arrays) -> bytes:
    """A file, written by hand: name -> (dtype, array)."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, array) in arrays.items():
        start, data = len(data), data + array.tobytes()
        shape = list(array.shape)
        offsets = [start, len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors_are_read_in_every_dtype(tmp_path):
    path = tmp_path / "a.safetensors"
    for dtype, features in (("F32", X), ("F64", X.astype("f8"))):
        for code in ("I64", "U8", "F32"):
            labels = CODES.astype({"I64": "i8", "U8": "u1", "F32": "f4"}[code])
            path.write_bytes(tensors(y=(code, labels), X=(dtype, features)))
            assert is_whole(load(path), map(str, CODES))
    half = (X.view("u4") >> 16).astype("u2")
    path.write_bytes(tensors(embeddings=("BF16", half), labels=("I64", CODES)))
    np.testing.assert_allclose(load(path).embeddings, X, rtol=2**-7)
    assert load(path).embeddings.dtype == np.float32


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96], **changes}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (entry(data_offsets=[0, 95]), "96 bytes, above 0, of the file's 144"),
        (entry(data_offsets=[96, 0]), "those from 96 to 0"),
        (entry(data_offsets=[64, 160]), "those from 64 to 160"),
        (entry(shape=[6, 1 << 50]), "those from 0 to 96"),
        (entry(shape=[0, 1 << 59], data_offsets=[0, 0]), "those from 0 to 0"),
        (entry(shape=[6, 2, 2]), "x.reshape(6, -1) makes a row of each"),
        (entry(shape=[]), "shape [rows, D]"),
        (entry(shape=[-6, -4]), "expected dtype, shape and data_offsets"),
        (entry(shape=[True, 4]), "expected dtype, shape and data_offsets"),
        (entry(shape=["6", 4]), "expected dtype, shape and data_offsets"),
        (entry(dtype="F8_E4M3"), "one of F64, F32"),
        (entry(dtype="I32"), "expected floats, received dtype I32"),
        (entry(dtype=[]), "expected dtype, shape"),
        ([], "expected dtype, shape and data_offsets"),
        (None, "expected dtype, shape and data_offsets"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, changed, said):
    labels = {"dtype": "I64", "shape": [6], "data_offsets": [96, 144]}
    text = json.dumps({"X": changed, "y": labels}).encode()
    data = X.tobytes() + CODES.tobytes()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert said in refused(tmp_path / "a")


def test_safetensors_cut_short_or_of_other_names_are_refused(tmp_path):
    content = tensors(weight=("F32", X))
    (tmp_path / "a").write_bytes(content)
    assert "`embeddings` [rows, D] and `labels` [rows], or X and y" in refused(
        tmp_path / "a"
    )
    for length in (9, 40, len(content) - 1):
        (tmp_path / "a").write_bytes(content[:length])
        refused(tmp_path / "a")
    (tmp_path / "a").write_bytes(struct.pack("<Q", 1 << 23) + b"{" * 100)
    assert "a header of at most" in refused(tmp_path / "a")
    (tmp_path / "a").write_bytes(struct.pack("<Q", 90_000) + b'{"a":' * 18_000)
    assert "a header in JSON" in refused(tmp_path / "a")
