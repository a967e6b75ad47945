"""The splits of a data set are found in each layout, and refused if they overlap."""

import errno
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from leo_tf.configs.schema import DataConfig
from leo_tf.data_pipeline.release_layout import dataset_of, find_files
from leo_tf.data_pipeline.sources import read
from leo_tf.errors import InputError

_SPLITS = ("train", "val", "test")


def _read(path, splits=_SPLITS, **settings):
    named = DataConfig(dataset_name="mini", data_path=str(path), **settings)
    return read(named, splits)


def _content(split, scale=1.0, classes=None):
    names = classes or [f"{split}-1", f"{split}_2"]
    keys = [f"{i}-{name}-{name}_{i}.jpg" for i, name in enumerate(names)]
    return np.full((len(names), 3), scale, np.float32), np.array(keys)


def _write(path, split, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    embeddings, keys = _content(split, **options)
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"embeddings": embeddings, "keys": keys}, 2))
    else:
        labels = [key.split("_")[0] for key in keys]
        np.savez(path, embeddings=embeddings, labels=labels, names=keys)


def _write_all(path, **changed):
    arrays = {}
    for split in _SPLITS:
        embeddings, keys = _content(split, **changed.get(split, {}))
        arrays |= {f"embeddings_{split}": embeddings, f"keys_{split}": keys}
    np.savez(path, **arrays)


_LAYOUTS = [
    "mini/center/{split}_embeddings.pkl",
    "mini/center/{split}.npz",
    "mini/{split}.npz",
    "mini.npz",
    "{split}.npz",
    "center/{split}_embeddings.pkl",
]


def _lay_out(root, layout, scale=1.0):
    for split in _SPLITS:
        if "{split}" in layout:
            _write(root / layout.format(split=split), split, scale=scale)
    if "{split}" not in layout:
        _write_all(root / layout, **{split: {"scale": scale} for split in _SPLITS})


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_each_layout_of_a_directory_is_found(layout, tmp_path):
    _lay_out(tmp_path, layout)
    tables = _read(tmp_path, dtype="float64")
    assert list(tables) == list(_SPLITS)
    for split, table in tables.items():
        assert table.num_classes == 2 and all(split in n for n in table.class_names)
        assert table.embeddings.dtype == np.float64


@pytest.mark.parametrize("first", range(len(_LAYOUTS) - 1))
def test_the_layouts_are_tried_in_the_order_documented(first, tmp_path):
    for scale, layout in enumerate(_LAYOUTS[first:], start=1):
        _lay_out(tmp_path, layout, scale)
    tables = _read(tmp_path)
    assert {table.embeddings.max() for table in tables.values()} == {1.0}


@pytest.mark.parametrize(
    "layout",
    [
        "mini/{crop}/{split}_embeddings.pkl",
        "mini/{crop}/{split}.npz",
        "{crop}/{split}_embeddings.pkl",
    ],
)
def test_the_crop_that_is_named_is_read_where_there_are_crops(layout, tmp_path):
    for scale, crop in enumerate(("center", "multiview"), start=1):
        for split in _SPLITS:
            path = tmp_path / layout.format(crop=crop, split=split)
            _write(path, split, scale=scale)
    for scale, crop in enumerate(("center", "multiview"), start=1):
        tables = _read(tmp_path, embedding_crop=crop)
        assert {table.embeddings.max() for table in tables.values()} == {scale}


def test_a_file_of_all_splits_needs_neither_name_nor_crop(tmp_path):
    _write_all(tmp_path / "set.npz")
    tables = _read(tmp_path / "set.npz")
    assert tables["val"].class_names == ("val-1", "val_2")


def test_only_the_splits_asked_for_are_read(tmp_path):
    _write(tmp_path / "test.npz", "test")
    (tmp_path / "train.npz").write_bytes(b"not read")
    assert list(_read(tmp_path, ["test"])) == ["test"]


def test_classes_in_two_splits_are_refused_naming_the_files(tmp_path):
    for split in _SPLITS:
        classes = ["a", "b"] if split != "val" else ["c", "b"]
        _write(tmp_path / f"mini/center/{split}_embeddings.pkl", split, classes=classes)
    with pytest.raises(InputError) as caught:
        _read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/mini/center/val_embeddings.pkl: classes")
    assert "train_embeddings.pkl" in message and "first 'b'" in message


def test_classes_shared_within_one_file_are_refused(tmp_path):
    _write_all(tmp_path / "set.npz", val={"classes": ["train_2", "x"]})
    with pytest.raises(InputError, match="1 shared, first 'train_2'"):
        _read(tmp_path / "set.npz")


def test_a_directory_without_data_is_refused_with_all_that_was_tried(tmp_path):
    with pytest.raises(InputError) as caught:
        _read(tmp_path)
    for layout in _LAYOUTS:
        assert layout.format(split="SPLIT") in str(caught.value)


def test_half_a_data_set_is_refused_naming_the_missing_file(tmp_path):
    _lay_out(tmp_path, "{split}.npz")
    _write(tmp_path / "mini/center/train_embeddings.pkl", "train")
    with pytest.raises(InputError, match=r"center/val_embeddings\.pkl: .*other splits"):
        _read(tmp_path)


def test_a_file_of_one_split_is_refused_as_a_whole_data_set(tmp_path):
    _write(tmp_path / "train_embeddings.pkl", "train")
    with pytest.raises(InputError, match="a file of several splits"):
        _read(tmp_path / "train_embeddings.pkl")


@pytest.mark.parametrize(
    ("made", "named", "found"),
    [
        ("mine.npz", "glyphs", "mine"),
        ("Mine.NPZ", "glyphs", "Mine"),
        ("mine/train.npz", "glyphs", "mine"),
        ("mine/test.tfrecord", "glyphs", "mine"),
        ("mine/val.npz", "glyphs", "miniImageNet"),
        ("mine/miniImageNet/train.npz", "glyphs", "miniImageNet"),
        ("mine/train.npz", "tieredImageNet", "mine"),
        ("mine/center/train_embeddings.pkl", "miniImageNet", "mine"),
        ("mine/state.json", "glyphs", "mine"),
        ("mine/tieredImageNet/train.npz", "tieredImageNet", "tieredImageNet"),
    ],
)
def test_where_nobody_names_the_data_set_it_has_the_name_of_its_place(
    tmp_path, made, named, found
):
    path = tmp_path / made
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    place = str(tmp_path / pathlib.Path(made).parts[0])
    assert dataset_of(DataConfig(dataset_name=named, data_path=place)) == found


def test_the_command_line_asks_for_a_name_without_loading_numpy():
    module = "leo_tf.data_pipeline.release_layout"
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.stdout == "False\n", done.stderr


def test_a_directory_that_cannot_be_listed_is_refused_by_its_path(
    tmp_path, monkeypatch
):
    def fail(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(InputError, match="can be read, received Permission") as error:
        find_files(DataConfig(dataset_name="tiny", data_path=str(tmp_path)))
    assert error.value.where == str(tmp_path)
