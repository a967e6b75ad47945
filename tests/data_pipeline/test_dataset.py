"""The splits of a run: what fits is described, what does not is refused at once."""

import numpy as np
import pytest

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.errors import FlagError, InputError


def config(data_path, **settings) -> Config:
    fits = {"way": 3, "num_query": 4, "meta_batch_size": 2}
    data = {"data_path": str(data_path), "dataset_name": "tiny"}
    return Config().replace(**{**data, **fits, **settings})


def split_of(sizes, name="test") -> Split:
    """A split with classes of the given sizes; rows are told apart by their angle."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    angles = np.linspace(0, 3, len(labels))
    table = EmbeddingTable(
        np.stack([np.cos(angles), np.sin(angles)], axis=1),
        labels,
        tuple(f"class {i}" for i in range(len(sizes))),
    )
    features = FeatureTable.from_embeddings(table)
    return Split(name, features, table.class_names, None, "digest", "here.npz")


def test_a_split_says_its_name_classes_examples_and_source():
    assert str(split_of([12, 12])) == "test: 2 classes x 12 examples, here.npz"
    uneven = split_of([5, 12, 7], name="val")
    assert str(uneven) == "val: 3 classes x 5 to 12 examples, here.npz"


def test_what_a_split_says_is_one_line_whatever_its_source():
    split = split_of([12, 12])._replace(source="/ä/\x1b[31m\nb.npz")
    assert str(split) == r"test: 2 classes x 12 examples, /ä/\x1b[31m\nb.npz"


def test_every_split_is_loaded_under_its_name(tiny_data):
    splits = datasets.load(config(tiny_data))
    assert list(splits) == ["train", "val", "test"]
    assert [len(split.class_names) for split in splits.values()] == [8, 6, 7]
    assert splits["val"].name == "val" and splits["val"].embedding_size == 8
    assert splits["val"].source == str(tiny_data / "tiny" / "val.npz")
    assert len({split.digest for split in splits.values()}) == 3


def test_only_what_is_wanted_is_read(tmp_path, write_split):
    write_split(tmp_path / "tiny" / "test.npz", "test", 5, seed=0)
    assert list(datasets.load(config(tmp_path), ["test"])) == ["test"]


def test_trained_on_val_the_training_split_holds_the_validation_classes_too(tiny_data):
    apart = datasets.load(config(tiny_data))
    joined = datasets.load(config(tiny_data, train_on_val=True))
    names = apart["train"].class_names + apart["val"].class_names
    assert joined["train"].class_names == names
    features = [apart[name].table.features for name in ("train", "val")]
    np.testing.assert_array_equal(
        joined["train"].table.features, np.concatenate(features)
    )
    assert joined["val"].class_names == apart["val"].class_names
    assert joined["train"].digest != apart["train"].digest


@pytest.mark.parametrize(
    ("settings", "file", "complaint"),
    [
        ({"way": 9}, "train", "classes for train: expected at least way = 9"),
        ({"test_way": 7}, "val", "classes for val: expected at least way = 7"),
        ({"num_query": 12}, "train", "`labels`: expected shot + num_query = 1 + 12"),
        ({"shot": 9}, "train", "`labels`: expected shot + num_query = 9 + 4"),
        ({"test_shot": 12}, "val", "`labels`: expected shot + num_query = 12 + 1"),
        ({"test_num_query": 12}, "val", "`labels`: expected shot + num_query = 1 + 12"),
    ],
)
def test_episodes_that_do_not_fit_are_refused_naming_the_file(
    tiny_data, settings, file, complaint
):
    with pytest.raises(InputError) as caught:
        datasets.load(config(tiny_data, **settings))
    start = f"{tiny_data / 'tiny' / file}.npz: {complaint}"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("settings", "fits"), [({"way": 9}, "--way=8"), ({"test_way": 7}, "--test_way=6")]
)
def test_too_few_classes_name_the_flag_that_fits(tiny_data, settings, fits):
    with pytest.raises(InputError, match=rf" received \d\. {fits} fits\.$"):
        datasets.load(config(tiny_data, **settings))


def test_small_classes_are_named(tmp_path, write_split):
    for seed, split in enumerate(SPLITS):
        labels = np.repeat([f"{split} {i}" for i in range(6)], 12)
        if split == "test":
            labels[5 * 12 + 1 :] = "test 4"  # leaves one row to class 5
        path = tmp_path / "tiny" / f"{split}.npz"
        write_split(path, split, 6, seed, labels=labels)
    with pytest.raises(InputError, match=r"1 of 6 classes with fewer: 'test 5' \(1\)"):
        datasets.load(config(tmp_path))


def test_small_classes_are_dropped_where_that_is_asked_for_and_said(
    tmp_path, write_split, capsys
):
    for seed, split in enumerate(SPLITS):
        sizes = [12, 2, 12, 4, 12, 12]
        labels = np.repeat([f"{split} {i}" for i in range(6)], sizes)
        rows = np.random.default_rng(seed).normal(size=(len(labels), 8))
        path = tmp_path / "tiny" / f"{split}.npz"
        write_split(path, split, 6, seed, embeddings=rows, labels=labels)
    with pytest.raises(InputError, match="--num_query=1 fits, or --drop_small_classes"):
        datasets.load(config(tmp_path))
    with pytest.raises(InputError, match="--test_num_query=1 fits, or --drop_small_c"):
        datasets.load(config(tmp_path, test_num_query=9), ["test"])
    with pytest.raises(InputError, match=r"\. --drop_small_classes leaves such"):
        datasets.load(config(tmp_path, shot=2), ["val"])
    settings = config(tmp_path, drop_small_classes=True, test_shot=3)
    splits = datasets.load(settings, console=Console())
    assert [len(split.class_names) for split in splits.values()] == [4, 5, 5]
    assert splits["train"].class_names == tuple(f"train {i}" for i in (0, 2, 4, 5))
    assert splits["train"].table.features.shape == (48, 8)
    assert capsys.readouterr().err.splitlines() == [
        "train: dropped 2 of 6 classes with fewer than 5 rows: 'train 1' (2), "
        "'train 3' (4)",
        "val: dropped 1 of 6 classes with fewer than 4 rows: 'val 1' (2)",
        "test: dropped 1 of 6 classes with fewer than 4 rows: 'test 1' (2)",
    ]
    few = r"way = \d with shot \+ num_query = {} rows, received {} of 6.*Lower {}"
    with pytest.raises(InputError, match=few.format(r"1 \+ 12", 0, "--way")):
        datasets.load(settings.replace(num_query=12))
    with pytest.raises(InputError, match=few.format(r"9 \+ 2", 4, "--test_way")):
        changed = settings.replace(test_way=5, test_shot=9, test_num_query=2)
        datasets.load(changed, ["test"])


@pytest.mark.parametrize(
    ("sizes", "settings", "num_query"),
    [
        ([12, 9, 20], {"shot": 1}, 8),
        ([12, 9, 20], {"shot": 5}, 4),
        ([12, 9, 20], {"shot": 5, "test_shot": 2}, 7),
        ([700, 600, 650], {"shot": 5}, 595),
        ([700, 800, 650], {"shot": 1}, 599),
        ([12, 9, 20], {"shot": 1, "test_num_query": 3}, 3),
    ],
)
def test_as_many_queries_as_the_smallest_class_allows_but_no_more_than_the_release(
    sizes, settings, num_query
):
    shape = datasets.evaluation_shape(Config().replace(**settings), split_of(sizes))
    assert shape["num_query"] == num_query


def test_test_episodes_have_their_own_way_and_shot(tiny_data):
    settings = {"test_way": 4, "test_shot": 2, "test_num_query": 5}
    both = config(tiny_data, **settings)
    splits = datasets.load(both)
    [episode] = datasets.evaluation_episodes(both, splits["test"], count=6)
    assert episode.support_inputs.shape == [6, 4, 2, 8]
    assert episode.query_inputs.shape == [6, 4, 5, 8]
    training = next(iter(datasets.training_episodes(both, splits["train"], start=0)))
    assert training.support_inputs.shape == [2, 3, 1, 8]
    assert training.query_inputs.shape == [2, 3, 4, 8]


def test_training_starts_at_any_step_with_the_episodes_of_that_step(tiny_data):
    settings = config(tiny_data)
    split = datasets.load(settings)["train"]
    from_0 = iter(datasets.training_episodes(settings, split, start=0))
    from_2 = iter(datasets.training_episodes(settings, split, start=2))
    first, _, third, fourth = (next(from_0).query_inputs.numpy() for _ in range(4))
    np.testing.assert_array_equal(next(from_2).query_inputs, third)
    np.testing.assert_array_equal(next(from_2).query_inputs, fourth)
    assert (first != third).any()


def test_evaluation_episodes_depend_on_seed_and_split_not_on_their_number(tiny_data):
    settings = config(tiny_data, test_num_query=2)
    split = datasets.load(settings)["test"]

    def queries(settings, count):
        parts = datasets.evaluation_episodes(settings, split, count)
        return np.concatenate([episode.query_inputs for episode in parts])

    ten = queries(settings, 10)
    assert len(ten) == 10
    np.testing.assert_array_equal(queries(settings, 7), ten[:7])
    assert (queries(settings.replace(seed=1), 10) != ten).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_are_of_the_type_that_was_asked_for(tiny_data, dtype):
    split = datasets.load(config(tiny_data, dtype=dtype), ["test"])["test"]
    assert split.table.features.dtype == dtype


def test_a_directory_without_the_data_set_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        datasets.load(config(tmp_path))
    assert caught.value.where == str(tmp_path)


def test_unbalanced_test_episodes_have_the_queries_of_training_unless_given(tiny_data):
    both = config(tiny_data, query_dirichlet=2.0, num_query=3)
    splits = datasets.load(both)
    shape = datasets.evaluation_shape(both, splits["test"])
    assert shape["num_query"] == 3 and shape["query_dirichlet"] == 2.0
    given = both.replace(test_num_query=5)
    assert datasets.evaluation_shape(given, splits["test"])["num_query"] == 5
    # All that is left of classes of 12 would be balanced, without a word.
    shots = both.episodes.evaluation_shot
    for queries in (12 - shots, 12):
        all_there_are = both.replace(test_num_query=queries)
        with pytest.raises(FlagError, match=f"--test_num_query: .*below {12 - shots},"):
            datasets.evaluation_shape(all_there_are, splits["test"])
    [rows] = datasets.evaluation_episodes(both, splits["test"], count=6).rows
    counts = [np.bincount(x.numpy().ravel(), minlength=3) for x in rows.labels]
    assert len({tuple(x) for x in counts}) > 2 and {x.sum() for x in counts} == {9}
    training = next(iter(datasets.training_episodes(both, splits["train"], start=0)))
    assert np.all(training.query_labels == np.arange(3)[:, np.newaxis])
