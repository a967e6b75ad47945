"""Tests that pickles of the release's form read exactly, and others do no harm."""

import collections
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from leo_tf.data_pipeline.formats.opening import open_input
from leo_tf.data_pipeline.release_pickle import reader as release_pickle
from leo_tf.errors import InputError

_PICKLES = pathlib.Path(__file__).parents[2] / "pickles"
_REFUSED = ("rowslist", "StringDType")
_READ = [
    path for path in sorted(_PICKLES.glob("*.pkl")) if not path.stem.endswith(_REFUSED)
]
_NOT_READ = [
    path for path in sorted(_PICKLES.glob("*.pkl")) if path.stem.endswith(_REFUSED)
]


def read_path(path) -> dict:
    """Returns the content of a file."""
    with open_input(path) as file:
        return release_pickle.read_file(file, path)


def _expected_names(stem):
    # Whoever wrote these wrote "é" before the hyphen, in one encoding or another.
    index = "é" if "NonAscii" in stem or "Latin1" in stem else None
    rows = [(i, f"n{i // 4:08d}") for i in range(12)]
    return [
        f"{i if index is None else index}-{name}-{name}_{i}.JPEG" for i, name in rows
    ]


def test_the_samples_are_all_here():
    assert len(_READ) == 113 and len(_NOT_READ) == 12


@pytest.mark.parametrize("path", _READ, ids=lambda path: path.stem)
def test_every_sample_reads_exactly_with_the_names_its_writer_meant(path):
    content = read_path(path)
    values = np.load(_PICKLES / "expected_embeddings.npy")
    dtype = {"f8": "<f8", "bigendian": ">f4"}.get(path.stem.split("_")[-1], "<f4")
    assert content["embeddings"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(content["embeddings"], values)
    assert content["keys"] == _expected_names(path.stem)
    assert {type(name) for name in content["keys"]} == {str}


@pytest.mark.parametrize("path", _NOT_READ, ids=lambda path: path.stem)
def test_what_is_not_read_is_refused_by_name(path):
    with pytest.raises(InputError) as caught:
        read_path(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: byte ")
    found = "type list" if "rowslist" in path.stem else "_convert_to_stringdtype"
    assert found in message


_TEXTS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=9)


def _key_containers(names):
    texts = [
        names,
        tuple(names),
        np.array(names),
        np.array(names, dtype=object),
        np.array(names, dtype=np.array(names).dtype.newbyteorder(">")),
        [np.str_(name) for name in names],
    ]
    try:
        encoded = [name.encode() for name in names]
    except UnicodeEncodeError:  # bytes that are no UTF-8 are read as Latin-1
        return texts
    of_bytes = [np.bytes_(name) for name in encoded]
    return [*texts, encoded, np.array(encoded), of_bytes]


@settings(max_examples=60)
@given(data=st.data(), protocol=st.integers(0, 5))
def test_whatever_python_3_writes_comes_back(data, protocol):
    shape = arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)
    dtype = arrays.floating_dtypes(sizes=(16, 32, 64), endianness="?")
    table = data.draw(arrays.arrays(dtype, shape))
    names = data.draw(st.lists(_TEXTS, min_size=len(table), max_size=len(table)))
    keys = data.draw(st.sampled_from(_key_containers(names)))
    layout = data.draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray]))
    table = layout(table)
    wrap = data.draw(st.sampled_from([dict, collections.OrderedDict]))
    content = wrap(embeddings=table, keys=keys)
    read = release_pickle.loads(pickle.dumps(content, protocol))
    assert read["embeddings"].dtype == table.dtype
    assert read["embeddings"].tobytes() == table.tobytes()
    assert read["keys"] == names


@pytest.mark.parametrize("protocol", range(6))
def test_an_array_longer_than_any_buffer_comes_back(protocol):
    # Long data take their own path, in pieces: characters of two bytes at the seams.
    rng = np.random.default_rng(protocol)
    table = rng.integers(0, 256, (300, 1200), np.uint8).view(np.float32)
    names = np.array([f"{i}-c-c_{i}" for i in range(300)], dtype="U100")
    content = pickle.dumps({"embeddings": table, "keys": names}, protocol)
    read = release_pickle.loads(content)
    assert read["embeddings"].tobytes() == table.tobytes()
    assert read["keys"] == names.tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_names_of_files_that_are_no_utf8_come_back(protocol):
    # As os.listdir gives them: surrogates stand for the bytes.
    names = [b"\xe9.jpg".decode("utf-8", "surrogateescape")]
    content = pickle.dumps({"embeddings": np.ones((1, 1)), "keys": names}, protocol)
    assert release_pickle.loads(content)["keys"] == names


def test_byte_names_of_one_file_have_one_encoding():
    def read(names):
        content = {"embeddings": np.ones((3, 1)), "keys": names}
        return release_pickle.loads(pickle.dumps(content, 3))["keys"]

    utf8 = [name.encode() for name in ("é", "ö", "日本")]
    assert read(utf8) == ["é", "ö", "日本"]
    # One that is no UTF-8 says that the other, which could be, is not meant so.
    assert read([b"\xe9", b"\xc3\xb6", b"a"]) == ["é", "Ã¶", "a"]


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "NUL in the path"])
def test_a_file_that_cannot_be_read_is_refused_with_its_path(kind, tmp_path):
    path = tmp_path / "a.pkl"
    if kind == "directory":
        path.mkdir()
    if kind == "empty":
        path.touch()
    path = "a\0b" if "NUL" in kind else path
    with pytest.raises(InputError, match=r"a\.pkl: expected|a\\x00b"):
        read_path(path)
