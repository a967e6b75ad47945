"""An .npz file is read within bounds, whatever its directory and headers say."""

import io
import pickle
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from leo_tf.data_pipeline.feature_files import load
from leo_tf.errors import InputError

_FEATURES = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


class _Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def _npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def _header(text, data=b""):
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    length = len(text).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + text.encode() + data


def _write(path, method=zipfile.ZIP_STORED, **members):
    good = {"embeddings": _FEATURES, "labels": np.array([0, 1, 0])}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, value in (good | members).items():
            data = value if isinstance(value, bytes) else _npy(value)
            file.writestr(f"{name}.npy", data)
    return path


def _refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def _floats(shape, data=b""):
    return _header(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}", data
    )


_FIELDS = [
    ("embeddings", np.ones((3, 4), object), "'|O'"),
    ("embeddings", np.ones((3, 4), np.int64), "<i8"),
    ("embeddings", np.ones((3, 4), complex), "<c16"),
    ("embeddings", np.ones((3, 4), bool), "|b1"),
    ("embeddings", np.ones((3, 2, 2)), "(3, 2, 2)"),
    ("embeddings", np.ones(3), "(3,)"),
    ("embeddings", np.float32(1), "()"),
    ("embeddings", np.ones(3, [("a", "<f4")]), "'a'"),
    ("embeddings", b"", "b''"),
    ("embeddings", b"not an array", "b'not an a'"),
    ("embeddings", _npy(_FEATURES)[:-1], "47 bytes"),
    ("embeddings", _npy(_FEATURES) + b"x", "49 bytes"),
    ("embeddings", _floats("(3, 4)", b"x" * 4), "4 bytes"),
    ("embeddings", _floats("(999999999999, 4)"), "0 bytes"),
    ("embeddings", _floats("(-3, 4)"), "(-3, 4)"),
    ("embeddings", _floats("(3, 4"), "header"),
    ("embeddings", _floats("(" + "1" * 90), "1111"),
    ("embeddings", _header("(" * 9000), "(((("),
    ("embeddings", _header("-" * 9000 + "1"), "----"),
    ("labels", np.array([[0], [1], [0]]), "(3, 1)"),
    ("labels", np.array([0, 1]), "2"),
    ("labels", np.array([0.5, 1, 2]), "0.5 in row 0"),
    ("labels", np.array(["a", "b", None], object), ".astype(str)"),
    (
        "labels",
        _header("{'descr': '<U0', 'fortran_order': False, 'shape': (3,), }"),
        "U0",
    ),
    ("labels", np.array([0x110000, 97, 98], "<u4").view("<U1"), "no characters"),
    ("names", np.array(["a", "b"]), "2"),
    ("names", np.array(["a", "b", "a"]), "'a'"),
    ("names", np.array([1, 2, 3]), "<i8"),
    ("names", np.array(["a", "b", None], object), "'|O'"),
]


@pytest.mark.parametrize("name, value, found", _FIELDS)
def test_a_wrong_array_is_refused_naming_file_and_field(name, value, found, tmp_path):
    message = _refused(_write(tmp_path / "a.npz", **{name: value}))
    assert message.startswith(f"{tmp_path}/a.npz: `{name}`")
    assert found in message


def test_objects_are_never_unpickled(tmp_path):
    canary = tmp_path / "canary"
    labels = np.array([_Canary(str(canary))] * 3, object)
    path = _write(tmp_path / "a.npz", labels=labels)
    _refused(path)
    assert not canary.exists()
    # Whereas this is what they would do.
    pickle.loads(pickle.dumps(_Canary(str(canary)))).close()
    assert canary.exists()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_version_of_the_header_is_read(version, method, tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array(file, _FEATURES.T.astype(">f4").T, version=version)
    path = _write(tmp_path / "a.npz", method, embeddings=file.getvalue())
    np.testing.assert_array_equal(load(path).embeddings, _FEATURES)


@pytest.mark.parametrize("shape", ["(3L, 4L)", "(3,4)", "(3, 4,)"])
def test_headers_of_python_2_and_of_other_writers_are_read(shape, tmp_path):
    header = _floats(shape, _FEATURES.tobytes())
    path = _write(tmp_path / "a.npz", embeddings=header)
    np.testing.assert_array_equal(load(path).embeddings, _FEATURES)


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=_FEATURES)
    message = _refused(tmp_path / "a.npz")
    assert "`labels`" in message and "'embeddings'" in message
    with zipfile.ZipFile(tmp_path / "b.npz", "w"):
        pass
    assert "a zip without any" in _refused(tmp_path / "b.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method, tmp_path):
    assert "method" in _refused(_write(tmp_path / "a.npz", method))


def test_an_array_twice_is_refused(tmp_path):
    path = _write(tmp_path / "a.npz")
    duplicate = pytest.warns(UserWarning, match="Duplicate name")
    with zipfile.ZipFile(path, "a") as file, duplicate:
        file.writestr("labels.npy", _npy([1, 1, 0]))
    assert "'labels.npy' again" in _refused(path)


def test_a_directory_of_countless_arrays_is_refused_before_it_is_read(tmp_path):
    members = {f"array{i}": b"" for i in range(5000)}
    message = _refused(_write(tmp_path / "a.npz", **members))
    assert "a directory of more than 262144 bytes" in message
    few = {f"array{i}": b"" for i in range(500)}
    assert load(_write(tmp_path / "a.npz", **few)).embedding_size == 4


def _patched(path, offset, value):
    """The file with a field of its directory's first entry overwritten."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def test_an_encrypted_array_is_refused(tmp_path):
    path = _patched(_write(tmp_path / "a.npz"), 8, b"\x01")
    assert "encrypted" in _refused(path)


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    bomb = _npy(np.ones((50_000, 640), np.float32))
    path = _write(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, embeddings=bomb)
    del bomb
    tracemalloc.start()
    message = _refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "20 times" in message and "np.savez" in message
    assert peak < 1_000_000


def test_a_declared_size_that_the_data_do_not_have_is_refused(tmp_path):
    # The directory says 20 MB, as the header does; 48 bytes follow.
    header = _floats("(3, 1600000)", _FEATURES.tobytes())
    path = _write(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, embeddings=header)
    size = len(header) - 48 + 4 * 3 * 1_600_000
    _refused(_patched(path, 24, size.to_bytes(4, "little")))


def test_a_shape_that_numpy_itself_refuses_is_refused(tmp_path):
    shape = "(0, 999999999999999)"
    text = f"{{'descr': '|S999999999', 'fortran_order': False, 'shape': {shape}, }}"
    message = _refused(_write(tmp_path / "a.npz", labels=_header(text)))
    assert "`labels`" in message and "too big" in message


def test_features_take_a_few_times_their_file(tmp_path):
    features = np.random.default_rng(0).normal(size=(3000, 640)).astype(np.float16)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, embeddings=features, labels=np.arange(3000) % 7)
    del features
    tracemalloc.start()
    table = load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.embeddings.shape == (3000, 640)
    assert peak < 3.5 * path.stat().st_size


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_truncation_and_every_damage_is_refused_or_harmless(method, tmp_path):
    path = _write(tmp_path / "a.npz", method, names=np.array(["x", "y", "z"]))
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        _refused(path)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            # Times, versions and the like may change; the data may not.
            np.testing.assert_array_equal(load(path).embeddings, _FEATURES)
        except InputError:
            refused += 1
    assert refused > 150
