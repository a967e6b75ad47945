"""An EmbeddingTable is either right or refused with one line that says why."""

import dataclasses

import numpy as np
import pytest

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.splits import check_splits, join
from leo_tf.errors import InputError

_FEATURES = np.array([[3.0, 4.0], [0.0, -2.0], [1.0, 0.0]], np.float32)


def _table(**fields):
    defaults = {
        "embeddings": _FEATURES,
        "labels": np.array([1, 0, 1]),
        "class_names": ("cat", "dog"),
        "names": np.array(["x", "y", "z"]),
        "source": "a/b.npz",
    }
    return EmbeddingTable(**defaults | fields)


def _with(row, value, dtype=np.float32):
    features = _FEATURES.astype(dtype)
    features[row] = value
    return features


@pytest.mark.parametrize(
    "fields, field, found",
    [
        ({"embeddings": np.ones((3, 2), np.int32)}, "embeddings", "int32"),
        ({"embeddings": np.ones((3, 2), bool)}, "embeddings", "bool"),
        ({"embeddings": np.ones((3, 2), object)}, "embeddings", "object"),
        ({"embeddings": np.ones((3, 2), complex)}, "embeddings", "complex128"),
        ({"embeddings": np.ones(3)}, "embeddings", "(3,)"),
        ({"embeddings": np.ones((0, 2))}, "embeddings", "(0, 2)"),
        ({"embeddings": np.ones((3, 0))}, "embeddings", "(3, 0)"),
        (
            {"embeddings": _with(2, [1, np.nan])},
            "embeddings",
            "row 2 is non-finite",
        ),
        ({"embeddings": _with(1, [np.inf, 1])}, "embeddings", "row 1 is"),
        ({"embeddings": _with(0, [np.inf, -np.inf])}, "embeddings", "row 0 is"),
        ({"embeddings": _with(1, 0.0)}, "embeddings", "row 1 is all zeros."),
        ({"embeddings": _with(1, 1e300, float)}, "embeddings", "infinity"),
        ({"embeddings": _with(1, 1e-300, float)}, "embeddings", "zeros"),
        ({"dtype": "int32"}, "embeddings", "'int32'"),
        ({"labels": np.array([0, 1])}, "labels", "2"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "labels", "float64"),
        ({"labels": np.array([[0], [1], [1]])}, "labels", "(3, 1)"),
        ({"labels": np.array([0, 1, 2])}, "labels", "0 to 2"),
        ({"labels": np.array([-1, 1, 0])}, "labels", "-1 to 1"),
        ({"labels": np.array([1, 1, 1])}, "labels", "none of 'cat'"),
        ({"class_names": ("cat", "cat")}, "class_names", "'cat'"),
        ({"names": np.array(["x", "y"])}, "names", "2"),
        ({"names": np.array(["x", "y", "x"])}, "names", "'x'"),
        ({"names": np.array([b"x", b"y", b"z"])}, "names", "bytes"),
        ({"names": np.array(["x", 1, "z"], object)}, "names", "int"),
        ({"names": "xyz"}, "names", "()"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "images", "2"),
        ({"images": np.zeros((3, 4, 4))}, "images", "float64"),
        ({"images": np.zeros((3, 4), np.uint8)}, "images", "(3, 4)"),
    ],
)
def test_bad_data_are_refused_naming_file_field_and_what_was_found(
    fields, field, found
):
    with pytest.raises(InputError) as caught:
        _table(**fields)
    message = str(caught.value)
    assert message.startswith(f"a/b.npz: `{field}`: expected ")
    assert found in message.split(", received ")[1] and "\n" not in message


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([4500], "row 4500 is"),
        ([4500, 4600], "rows 4500, 4600 are"),
        ([4500, 4510, 4520, 4530], "rows 4500, 4510, 4520 and 1 or more others are"),
    ],
)
def test_the_first_offenders_are_named_wherever_they_are(rows, told):
    # Beyond the first block of rows that is looked at together.
    features = np.ones((5000, 1024), np.float32)
    features[rows, 3] = np.nan
    with pytest.raises(InputError) as caught:
        EmbeddingTable(features, np.zeros(5000, int), ("a",))
    assert caught.value.received == f"{told} non-finite (NaN or infinity)"


def test_finite_rows_whose_sum_overflows_are_accepted():
    features = np.full((4, 3), 1e308)
    table = EmbeddingTable(features, np.zeros(4, int), ("a",), dtype="float64")
    np.testing.assert_array_equal(table.embeddings, features)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_any_float_becomes_the_dtype_asked_for(given, dtype):
    table = _table(embeddings=np.asfortranarray(_FEATURES.astype(given)), dtype=dtype)
    assert table.embeddings.dtype == np.dtype(dtype)
    assert table.embeddings.flags.c_contiguous
    np.testing.assert_array_equal(table.embeddings, _FEATURES)


def test_class_sizes_count_the_rows_of_each_class():
    table = _table()
    assert table.class_sizes.tolist() == [1, 2]
    assert (table.num_classes, table.embedding_size) == (2, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalized_rows_have_length_one_at_any_scale(dtype):
    info = np.finfo(dtype)
    features = np.array([[3, 4], [-6, 8], [5, 12]], dtype)
    scaled = features * np.array([[1], [info.tiny], [info.max / 16]], dtype)
    unit = _table(embeddings=scaled, dtype=dtype).normalized()
    expected = [[0.6, 0.8], [-0.6, 0.8], [5 / 13, 12 / 13]]
    np.testing.assert_allclose(unit, expected, rtol=4 * info.eps)
    assert unit.dtype == np.dtype(dtype)


def test_normalized_leaves_the_table_alone_and_covers_every_block():
    features = np.random.default_rng(0).normal(size=(9000, 600)).astype(np.float32)
    table = EmbeddingTable(features.copy(), np.zeros(9000, int), ("a",))
    norms = np.linalg.norm(table.normalized(), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    np.testing.assert_array_equal(table.embeddings, features)


def test_equal_tables_have_equal_digests_however_they_were_given():
    other = _table(
        embeddings=np.asfortranarray(_FEATURES.astype(">f8")),
        labels=np.array([1, 9, 0, 9, 1], np.int32)[::2],
        class_names=["cat", "dog"],
        names=np.array(["x", "y", "z"], object),
        source="elsewhere",
    )
    assert other.digest == _table().digest


@pytest.mark.parametrize(
    "fields",
    [
        {"embeddings": _with(2, [1, 1e-7])},
        {"embeddings": _FEATURES[::-1]},
        {"labels": np.array([1, 0, 0])},
        {"class_names": ("cat", "dot")},
        {"names": np.array(["x", "y", "Z"])},
        {"names": np.array(["y", "x", "z"])},
        {"names": None},
        {"dtype": "float64"},
        # The same characters, cut at another place.
        {"class_names": ("cat", "do"), "names": np.array(["gx", "y", "z"])},
        {"class_names": ("cat", "dogx"), "names": np.array(["", "y", "z"])},
        {"class_names": ("cat", 'dog", "x'), "names": np.array(["y", "z", "w"])},
    ],
)
def test_the_digest_changes_with_every_value_label_and_name(fields):
    assert _table(**fields).digest != _table().digest


def test_the_digest_tells_shapes_with_the_same_bytes_apart():
    # A label 0 has the bytes of a feature 0.0.
    tall = EmbeddingTable(np.array([[1.0], [2.0]]), np.array([0, 0]), ("a",))
    wide = EmbeddingTable(np.array([[1.0, 2.0, 0.0]]), np.array([0]), ("a",))
    assert wide.digest != tall.digest


def _other(**fields):
    names = np.array(["u", "v", "w"])
    return _table(class_names=("ant", "bee"), names=names, source="c.npz", **fields)


def test_join_keeps_each_row_with_its_own_class_and_name():
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    first, second = _table(images=images), _other(images=images + 100)
    both = join([first, second])
    assert both.class_names == ("cat", "dog", "ant", "bee")
    assert both.source == "a/b.npz + c.npz"
    for i, name in enumerate(["x", "y", "z", "u", "v", "w"]):
        table, row = (first, i) if i < 3 else (second, i - 3)
        assert both.names[i] == name
        label = both.class_names[both.labels[i]]
        assert label == table.class_names[table.labels[row]]
        np.testing.assert_array_equal(both.embeddings[i], table.embeddings[row])
        np.testing.assert_array_equal(both.images[i], table.images[row])


def test_join_drops_what_not_every_table_has():
    both = join([_table(), _other(images=np.zeros((3, 2, 2), np.uint8))])
    assert both.images is None and both.names is not None


def test_splits_that_share_a_class_are_refused_naming_both_files():
    shared = dataclasses.replace(_other(), class_names=("bee", "dog"))
    with pytest.raises(InputError) as caught:
        check_splits([_table(), shared])
    message = str(caught.value)
    assert message.startswith("c.npz: classes: expected no class of a/b.npz")
    assert "1 shared, first 'dog'" in message


def test_class_numbers_that_begin_anew_in_a_split_come_with_the_cure():
    first = _table(class_names=("0", "1"))
    again = dataclasses.replace(_other(), class_names=("1", "2"), source="arrays")
    with pytest.raises(InputError, match=r"1 shared, first '1'\. .*\"train\{label\}\""):
        check_splits([first, again])


def test_splits_of_different_embedding_size_are_refused_naming_both_files():
    wider = _other(embeddings=np.ones((3, 5)))
    with pytest.raises(InputError, match=r"c\.npz: .*D = 2 as in a/b\.npz.*D = 5"):
        join([_table(), wider])


def test_a_name_that_two_splits_share_is_refused_when_they_are_joined():
    twin = dataclasses.replace(_other(), names=np.array(["x", "q", "r"]))
    with pytest.raises(InputError, match=r"a/b\.npz \+ c\.npz: `names`: .*'x'"):
        join([_table(), twin])
