"""Directories are made with their parents, or an error says why not."""

import pathlib

import pytest

from leo_tf.files import make_directory


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
