"""Tests that classes are divided among splits the same way every time."""

import json

import numpy as np
import pytest

from leo_tf.configs.settings import DataConfig
from leo_tf.console import Console
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.images.class_splits import split_pictures
from leo_tf.data_pipeline.images.pictures import find_pictures
from leo_tf.data_pipeline.sources import load_data, read
from leo_tf.data_pipeline.splits import split_classes
from leo_tf.errors import FlagError, InputError, LeoError

NAMES = [f"class {i}" for i in range(25)]


def split(names=NAMES, **settings) -> dict[str, str]:
    """Returns name -> split."""
    settings = settings or {"class_split": "0.64,0.16,0.2"}
    return dict(zip(names, split_classes(names, DataConfig(**settings))))


def sizes(found: dict[str, str]) -> list[int]:
    return [list(found.values()).count(name) for name in ("train", "val", "test")]


def test_shares_are_those_of_the_classes_whatever_their_order():
    found = split()
    assert sizes(found) == [16, 4, 5]
    assert split(NAMES[::-1]) == found
    assert split(class_split="0.64,0.16,0.2", split_seed=1) != found
    # A promise: the digests of "0/" and the name, in order; test first, then val.
    assert [name for name in NAMES if found[name] == "test"] == TEST_CLASSES


TEST_CLASSES = ["class 6", "class 7", "class 8", "class 14", "class 21"]


def test_one_class_more_moves_few_others():
    for number in range(25, 60):
        names = [f"class {i}" for i in range(number)]
        before, after = split(names), split([*names, "one more"])
        assert sum(before[name] != after[name] for name in names) <= 2


def test_every_class_is_tested_in_one_fold_and_val_in_one():
    folds = [split(class_folds=4, fold=i) for i in range(4)]
    for name in NAMES:
        assert sorted(fold[name] for fold in folds) == ["test", "train", "train", "val"]
    assert {tuple(sizes(fold)) for fold in folds} <= {
        (13, 6, 6),
        (12, 7, 6),
        (12, 6, 7),
    }
    assert split(NAMES[::-1], class_folds=4, fold=2) == folds[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"class_split": "0.98,0.01,0.01"}, "--class_split: .* 25, 0 and 0 of 25"),
        ({"class_folds": 26, "fold": 0}, "--class_folds: .* at most 25"),
        ({"class_folds": 4}, "--fold: .* 0 to 3, received nothing.*--mode=compare"),
        ({"class_folds": 4, "fold": 4}, "--fold: .* 0 to 3, received 4"),
        ({"class_folds": 4, "fold": 1, "class_split": ".6,.2,.2"}, "--class_folds=4"),
    ],
)
def test_what_cannot_be_split_so_is_refused(settings, said):
    with pytest.raises(FlagError, match=said):
        split(**settings)


@pytest.fixture
def names_file(tmp_path):
    def write(content) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "split.json").write_text(text)
        return str(tmp_path / "split.json")

    return write


def test_a_file_of_names_says_which_and_leaves_out_the_others(names_file, capsys):
    path = names_file({"train": ["a", 7], "val": ["c"], "test": ["d"]})
    settings = DataConfig(class_split=path)
    found = split_classes(["7", "a", "b", "c", "d"], settings, Console())
    assert found == ("train", "train", "", "val", "test")
    assert "split.json: leaves out 1 classes: 'b'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "a JSON file"),
        ([1], 'expected {"train": '),
        ({"train": ["a"], "test": ["b"]}, "received 'train', 'test'"),
        ({"train": ["a"], "val": [], "test": ["b"]}, "`val`: expected a list"),
        ({"train": ["a"], "val": "b", "test": ["b"]}, "`val`: expected a list"),
        ({"train": ["a"], "val": [["b"]], "test": ["b"]}, "`val`: expected names"),
        ({"train": ["a"], "val": ["b"], "test": ["a"]}, "'a' again"),
        (
            {"train": ["a"], "val": ["b"], "test": ["x", "y"]},
            "2 others, first 'x', 'y'",
        ),
    ],
)
def test_a_file_of_names_that_makes_no_sense_is_refused(names_file, content, said):
    path = names_file(content)
    with pytest.raises(InputError) as caught:
        split(["a", "b", "c"], class_split=path)
    assert str(caught.value).startswith(path) and said in str(caught.value)


X = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
Y = np.array(NAMES).repeat(4)


def classes_of(data) -> dict[str, str]:
    return {name: split for split in data for name in data[split].class_names}


@pytest.fixture
def one_file(tmp_path):
    path = tmp_path / "all.npz"
    order = np.random.default_rng(1).permutation(len(X))
    np.savez(path, embeddings=X[order], labels=Y[order])
    return path


def test_one_file_and_arrays_of_all_classes_are_split_alike(one_file):
    shares = {"class_split": "0.64,0.16,0.2"}
    from_file, from_arrays = load_data(one_file, **shares), load_data((X, Y), **shares)
    assert classes_of(from_file) == classes_of(from_arrays) == split()
    assert load_data(load(one_file), **shares)["val"].digest == from_file["val"].digest
    assert from_file.settings()["class_split"] == "0.64,0.16,0.2"
    assert from_arrays.settings()["class_split"] == ""  # what is kept of it is split
    assert len(from_file["val"].labels) == 16
    folds = load_data(one_file, class_folds=4, fold=1)
    assert classes_of(folds) == split(class_folds=4, fold=1)
    named = DataConfig(data_path=str(one_file), class_folds=4, fold=1)
    assert read(named, ["test"])["test"].digest == folds["test"].digest


def test_a_file_of_names_is_found_again_from_anywhere(one_file, tmp_path, monkeypatch):
    names = {"train": NAMES[:5], "val": NAMES[5:9], "test": NAMES[9:]}
    (tmp_path / "s.json").write_text(json.dumps(names))
    monkeypatch.chdir(tmp_path)
    data = load_data("all.npz", class_split="s.json")
    assert data.settings()["class_split"] == str(tmp_path / "s.json")
    assert data["val"].class_names == tuple(sorted(NAMES[5:9]))


def test_one_file_without_splits_names_the_flag(one_file):
    with pytest.raises(InputError, match=r"--class_split=0\.64,0\.16,0\.2 divides"):
        load_data(one_file)
    with pytest.raises(InputError, match=r'class_split="0\.64,0\.16,0\.2" divides'):
        load_data((X, Y))


def test_data_that_has_splits_is_not_split_again(tmp_path):
    x, y = X[:8], Y[:8]
    given = {s: (x, np.char.add(s, y)) for s in ("train", "val", "test")}
    for name, (features, labels) in given.items():
        np.savez(tmp_path / f"{name}.npz", embeddings=features, labels=labels)
    several = {f"embeddings_{s}": x for s in given}
    keys = {f"keys_{s}": [f"{i}-{s}{i}-{s}{i}_" for i in range(8)] for s in given}
    np.savez(tmp_path / "set.npz", **several, **keys)
    for source in (tmp_path, tmp_path / "set.npz", given, None):
        for settings in ({"class_split": ".6,.2,.2"}, {"class_folds": 3, "fold": 0}):
            (flag, _), *_ = settings.items()
            with pytest.raises(FlagError, match=f"--{flag}: .*Leave --{flag} out"):
                load_data(source, **settings)
    # As a run of shared classes is tested on other data.
    named = DataConfig(data_path=str(tmp_path), class_split=".6,.2,.2")
    assert read(named, ["test"])["test"].num_classes == 2


def test_settings_that_contradict_each_other_are_refused(one_file):
    for settings, said in (
        ({"val_classes": 2, "class_split": ".6,.2,.2"}, "--val_classes: expected 0"),
        (
            {"val_classes": 2, "class_folds": 3, "fold": 1},
            "--class_folds makes a val split",
        ),
        ({"fold": 1}, "--fold: expected --class_folds"),
        ({"fold": 1, "class_split": ".6,.2,.2"}, "--fold: expected --class_folds"),
    ):
        for source in (one_file, (X, Y)):
            with pytest.raises(LeoError, match=said):
                load_data(source, **settings)


def test_classes_of_pictures_are_split_by_the_same_rule(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    pictures = find_pictures(tmp_path)
    settings = DataConfig(class_split="0.64,0.16,0.2")
    pictures = pictures._replace(splits=split_classes(pictures.class_names, settings))
    assert dict(zip(pictures.class_names, pictures.splits)) == split()
    assert len(pictures.of_split("val")) == 4


def test_a_seed_draws_the_default_split_and_is_refused_where_folders_define_one(
    tmp_path,
):
    for number, name in enumerate(NAMES):
        folder = ("train", "val", "test")[number % 3]
        for path in (tmp_path / "all" / name, tmp_path / "split" / folder / name):
            path.mkdir(parents=True)
            (path / "1.jpg").touch()
    drawn = DataConfig(split_seed=3)
    pictures = split_pictures(tmp_path / "all", drawn)
    found = dict(zip(pictures.class_names, pictures.splits))
    assert found == split(class_split="0.64,0.16,0.2", split_seed=3)
    with pytest.raises(FlagError, match="--split_seed: expected --class_split or"):
        split_pictures(tmp_path / "split", drawn)
