"""TFRecord files: a round trip for every table, damage and lies refused."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from leo_tf.configs.schema import DataConfig
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.formats.tfrecord import save_tfrecord
from leo_tf.data_pipeline.formats.tfrecord_framing import is_tfrecord, scan
from leo_tf.data_pipeline.sources import read
from leo_tf.errors import DiskError, InputError

_FEATURES = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def _feature(*values) -> tf.train.Feature:
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _example(**features) -> bytes:
    features = {name: value for name, value in features.items() if value is not None}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def _row(**changes) -> bytes:
    good = {"embedding": _feature(1.0, 2.0, 3.0), "class": _feature(b"a")}
    return _example(**{**good, **changes})


def _write(path, *examples, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for example in examples:
            writer.write(example)
    return path


def _refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


@st.composite
def _tables(draw) -> EmbeddingTable:
    rows = draw(st.integers(1, 6))
    size = draw(st.integers(1, 4))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    number = number.filter(lambda x: x != 0.0)
    row = st.lists(number, min_size=size, max_size=size)
    features = draw(st.lists(row, min_size=rows, max_size=rows))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    names = st.lists(text, min_size=rows, max_size=rows, unique=True)
    classes = draw(st.lists(text, min_size=1, max_size=rows, unique=True))
    labels = [i % len(classes) for i in range(rows)]
    return EmbeddingTable(
        np.array(features, np.float32),
        np.array(draw(st.permutations(labels))),
        tuple(classes),
        names=draw(st.none() | names.map(lambda n: np.array(n, dtype=object))),
    )


@settings(max_examples=25)
@given(table=_tables())
def test_what_is_written_comes_back_bit_for_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("round") / "trip.tfrecord"
    save_tfrecord(path, table)
    read = load(path)
    assert read.embeddings.tobytes() == table.embeddings.tobytes()
    assert read.embeddings.dtype == np.float32
    named = [table.class_names[label] for label in table.labels]
    assert [read.class_names[label] for label in read.labels] == named
    if table.names is None:
        assert read.names is None
    else:
        assert read.names.tolist() == table.names.tolist()


def test_tensorflows_own_files_are_read_and_classes_are_in_order(tmp_path):
    rows = [
        _row(**{"class": _feature(name), "embedding": _feature(*values)})
        for name, values in [
            (b"10", (1.0, 2.0)),
            (b"2", (3.0, 4.0)),
            (b"10", (5.0,) * 2),
        ]
    ]
    table = load(_write(tmp_path / "any.name", *rows), dtype="float64")
    assert table.class_names == ("2", "10") and table.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(table.embeddings, [[1, 2], [3, 4], [5, 5]])
    assert table.embeddings.dtype == np.float64 and table.names is None


def test_more_rows_than_a_batch_holds_stay_in_order(tmp_path):
    features = np.arange(1, 90_001, dtype=np.float32).reshape(300, 300)
    features = np.repeat(features, 4, axis=0)  # 1.4 MB
    labels, names = np.arange(1200) % 3, np.array([f"n{i}" for i in range(1200)])
    table = EmbeddingTable(features, labels, ("a", "b", "c"), names=names)
    save_tfrecord(tmp_path / "x", table)
    assert (
        load(tmp_path / "x").digest
        == EmbeddingTable(features, labels, ("a", "b", "c"), names=names).digest
    )


def test_names_in_latin_1_are_read(tmp_path):
    rows = [_row(name=_feature(b"caf\xe9")), _row(name=_feature(b"x"))]
    assert load(_write(tmp_path / "x", *rows)).names.tolist() == ["café", "x"]


def test_what_else_an_example_holds_is_ignored(tmp_path):
    row = _row(label=_feature(7), picture=_feature(b"png"))
    assert load(_write(tmp_path / "x", row)).embeddings.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([_row(embedding=None)], "0 of `embedding`"),
        ([_row(**{"class": None})], "0 of `class`"),
        ([_row(**{"class": _feature(b"a", b"b")})], "2 of `class`"),
        ([_row(name=_feature(b"a", b"b"))], "2 of `name`"),
        ([_row(embedding=_feature(1, 2, 3))], "embedding"),
        ([_row(**{"class": _feature(1)})], "class"),
        ([_row(), _row(embedding=_feature(1.0, 2.0))], "embedding"),
        ([_row(), _row(embedding=_feature(1.0, 2.0, 3.0, 4.0))], "embedding"),
        ([_row(name=_feature(b"a")), _row()], "name"),
        ([_row(), b"\xff\xff\xff"], "undamaged examples"),
        ([b"\xff\xff\xff"], "undamaged examples"),
        ([_row(), b""], "0 bytes"),
        ([_row(embedding=_feature(float("nan"), 1.0, 2.0))], "NaN or infinity"),
        ([_row(name=_feature(b"a"))] * 2, "again: 'a'"),
    ],
)
def test_rows_that_are_not_alike_or_not_whole_are_refused(tmp_path, rows, found):
    assert found in _refused(_write(tmp_path / "x.tfrecord", *rows))


def test_every_flipped_bit_is_refused_by_a_checksum(tmp_path):
    path = _write(tmp_path / "x.tfrecord", _row(), _row(name=_feature(b"q")))
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        _refused(path)


def test_every_truncation_is_refused_or_ends_behind_a_row(tmp_path):
    rows = [_row(), _row(), _row()]
    path = _write(tmp_path / "x.tfrecord", *rows)
    content, ends = path.read_bytes(), {len(rows[0]) + 16, 2 * len(rows[0]) + 32}
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        if length in ends:
            assert len(load(path).embeddings) == length // (len(rows[0]) + 16)
        else:
            _refused(path)


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**63, 2**64 - 5, 2**64 - 1])
def test_a_length_beyond_the_file_never_reaches_tensorflow(tmp_path, length):
    path = _write(tmp_path / "x.tfrecord", _row())
    with path.open("ab") as file:
        file.write(struct.pack("<Q", length) + bytes(40))
    with path.open("rb") as file, pytest.raises(InputError) as caught:
        scan(file, "x")
    assert f"x: record 1: expected {length} more bytes, received only" in str(
        caught.value
    )


def test_a_record_longer_than_any_row_is_refused(tmp_path):
    long = _row(embedding=_feature(*[1.0] * 262_144))
    assert "a row of 1 to 1048576 bytes" in _refused(_write(tmp_path / "x", long))


def test_a_file_is_known_by_the_checksum_of_its_first_length(tmp_path):
    # A length whose first byte begins a pickle, too.
    rows = [
        _row(embedding=_feature(*[1.0] * 70), x=_feature(b"y" * n)) for n in range(300)
    ]
    row = next(row for row in rows if len(row) % 256 == 0x80)
    content = _write(tmp_path / "x.pkl", row).read_bytes()
    assert content[:1] == b"\x80"
    assert is_tfrecord(content[:12]) and not is_tfrecord(content[:11])
    assert load(tmp_path / "x.pkl").embedding_size == 70
    assert not is_tfrecord(b"\x81" + content[1:12])


def test_a_compressed_file_is_refused(tmp_path):
    path = _write(tmp_path / "x.tfrecord", _row(), options="GZIP")
    assert "a compressed file or an archive. Unpack it" in _refused(path)


def test_no_split_of_a_file_of_one(tmp_path):
    path = _write(tmp_path / "x.tfrecord", _row())
    with pytest.raises(InputError, match="a file of one split"):
        load(path, split="train")


def test_floats_that_would_be_rounded_and_texts_that_are_none_are_not_written(tmp_path):
    wide = EmbeddingTable(np.ones([1, 2]), np.array([0]), ("a",), dtype="float64")
    with pytest.raises(InputError, match=r"float64\. Write it with `save_npz`"):
        save_tfrecord(tmp_path / "x", wide)
    broken = EmbeddingTable(_FEATURES, np.array([0, 1]), ("a", "\ud800"))
    with pytest.raises(InputError, match="text in UTF-8"):
        save_tfrecord(tmp_path / "x", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    table = EmbeddingTable(_FEATURES, np.array([0, 1]), ("a", "b"))
    save_tfrecord(tmp_path / "x", table)
    old = (tmp_path / "x").read_bytes()

    def fails(*unused):
        raise tf.errors.UnknownError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", fails)
    with pytest.raises(DiskError, match="No space left"):
        save_tfrecord(tmp_path / "x", table)
    assert (tmp_path / "x").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("layout", ["data/{}.tfrecord", "{}.tfrecord"])
def test_a_directory_of_three_files_is_found(tmp_path, layout):
    for split in ("train", "val", "test"):
        path = tmp_path / layout.format(split)
        path.parent.mkdir(exist_ok=True)
        _write(path, _row(**{"class": _feature(split.encode())}))
    tables = read(DataConfig(dataset_name="data", data_path=str(tmp_path)))
    assert {name: table.class_names for name, table in tables.items()} == {
        "train": ("train",),
        "val": ("val",),
        "test": ("test",),
    }
