"""Tests that cached arrays come back whole or not at all, and failure is no error."""

import os
import pathlib

import numpy as np
import pytest

from leo_tf.data_pipeline.glyphs import cache as array_cache

ARRAYS = {
    "counts": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "names": np.array(["GREEK SMALL LETTER PSI", "x"]),
}


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "new" / "directory" / "arrays.npz"
    array_cache.write(path, ARRAYS)
    return path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def append(path):
    path.write_bytes(path.read_bytes() + b"\0")


def make_empty(path):
    path.write_bytes(b"")


def make_directory(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever


def test_arrays_come_back_as_they_were(kept):
    arrays = array_cache.read(kept)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_numpy_reads_the_file_without_us(kept):
    with np.load(kept, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["counts"], ARRAYS["counts"])


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut_short, append, make_empty, make_directory, make_pipe]
)
def test_a_damaged_file_counts_as_none(kept, damage):
    damage(kept)
    assert array_cache.read(kept) is None


def test_a_missing_file_counts_as_none(tmp_path):
    assert array_cache.read(tmp_path / "none.npz") is None
    assert array_cache.read(None) is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_warns_and_leaves_the_old_file_alone(kept, failing, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, failing, full)
    # Python 3.10's paths have kept the functions of os.
    if kept_by := getattr(pathlib, "_normal_accessor", None):
        monkeypatch.setattr(kept_by, failing, full, raising=False)
    with pytest.warns(UserWarning, match="arrays.npz .*no space left.*LEO_TF_CACHE"):
        array_cache.write(kept, {"other": np.zeros(3)})
    assert array_cache.read(kept).keys() == ARRAYS.keys()
    assert os.listdir(kept.parent) == ["arrays.npz"]


def test_no_home_directory_warns(monkeypatch):
    monkeypatch.delenv("LEO_TF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    path = array_cache.locate("arrays.npz")
    assert path is None
    with pytest.warns(UserWarning, match="expected a home directory"):
        array_cache.write(path, ARRAYS)


@pytest.mark.parametrize(
    "argument, ours, xdg, expected",
    [
        ("/argument", "/ours", "/xdg", "/argument/a.npz"),
        (None, "/ours", "/xdg", "/ours/a.npz"),
        (None, "", "/xdg", "/xdg/leo_tf/a.npz"),
        (None, "", "relative", "/home/someone/.cache/leo_tf/a.npz"),
        (None, "", "", "/home/someone/.cache/leo_tf/a.npz"),
    ],
)
def test_the_nearest_setting_decides_where(argument, ours, xdg, expected, monkeypatch):
    monkeypatch.setenv("LEO_TF_CACHE", ours)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/home/someone")
    assert array_cache.locate("a.npz", argument).as_posix() == expected
