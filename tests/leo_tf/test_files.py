"""Directories are made with their parents, files are whole, and errors say why not."""

import concurrent.futures
import pathlib

import numpy as np
import pytest

from leo_tf.files import make_directory, read_npz, write_file


def test_parents_are_made_and_what_is_there_stays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("mine")
    for _ in range(2):
        make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert (tmp_path / "a" / "mine").read_text() == "mine"


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "a" / "b")


def test_where_no_directory_can_ever_be_made_it_is_tried_once_more_only(
    tmp_path, monkeypatch
):
    with pytest.raises(OSError):
        make_directory(pathlib.Path("/proc/leo/run"))
    place = tmp_path / "gone"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    for relative in ("run", "a/b"):
        with pytest.raises(OSError):
            make_directory(pathlib.Path(relative))


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    path, contents = tmp_path / "file", [bytes([i]) * 5000 * (i + 1) for i in range(3)]
    seen = set()

    def write(content):
        for _ in range(40):
            write_file(path, content, lasts=False)
            seen.add(path.read_bytes())

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(write, content) for content in contents]:
            each.result()
    assert seen <= {*contents}
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_damaged_npz_is_a_value_error_and_a_missing_one_an_os_error(tmp_path):
    path, random = tmp_path / "a.npz", np.random.default_rng(0)
    np.savez(path, a=np.arange(9.0), b=np.array(["x", "yz"]))
    whole = path.read_bytes()
    assert [*read_npz(path)] == ["a", "b"]
    outcomes = []
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_npz(path)
        except ValueError as error:
            outcomes.append(str(error))
    assert len(outcomes) > 100 and all(outcomes)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="one array"):
        read_npz(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "b.npz")
