"""The pipeline yields the sampler's episodes from any batch on, and copies nothing."""

import ctypes
import gc
import pathlib
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.data_pipeline import embeddings
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable, episodes
from leo_tf.data_pipeline.sampler import RowSampler
from leo_tf.errors import InputError

SIZES = (7, 9, 8, 11)
D = 5


def _table(dtype="float32"):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    embeddings = rng.normal(scale=30.0, size=(len(labels), D))
    return EmbeddingTable(embeddings, labels, tuple("abcd"), dtype=dtype)


def _episodes(table=None, **options):
    settings = dict(
        way=3, shot=2, num_query=4, batch_size=3, seed=1, split="val", with_rows=True
    )
    features = FeatureTable.from_embeddings(table or _table())
    return episodes(features, **(settings | options))


def _arrays(dataset, batches):
    found = map(tf.nest.flatten, dataset.take(batches))
    return [[np.asarray(x) for x in batch if x is not None] for batch in found]


def _assert_same(batches, expected):
    for parts, expected_parts in zip(batches, expected, strict=True):
        for part, expected_part in zip(parts, expected_parts, strict=True):
            np.testing.assert_array_equal(part, expected_part)


def _joined(batches):
    return [[np.concatenate(parts) for parts in zip(*batches)]]


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-6), ("float64", 1e-14)])
def test_inputs_are_the_named_rows_divided_by_their_lengths(dtype, rtol):
    table = _table(dtype)
    episode, rows = next(iter(_episodes(table)))
    for inputs, where in (
        (episode.support_inputs, rows.support),
        (episode.query_inputs, rows.query),
    ):
        assert inputs.dtype == dtype
        for place in np.ndindex(*where.shape):
            raw = table.embeddings[where.numpy()[place]]
            unit = raw / np.sqrt(sum(float(x) ** 2 for x in raw))
            np.testing.assert_allclose(inputs[place], unit, rtol=rtol)


def test_class_n_of_an_episode_has_label_n():
    episode, _ = next(iter(_episodes()))
    assert episode.support_labels.dtype == episode.query_labels.dtype == tf.int32
    for b, n in np.ndindex(3, 3):
        np.testing.assert_array_equal(episode.support_labels[b, n], [n] * 2)
        np.testing.assert_array_equal(episode.query_labels[b, n], [n] * 4)


def test_batch_b_holds_the_samplers_episodes():
    features = FeatureTable.from_embeddings(_table())
    sampler = RowSampler(
        features.index, way=3, shot=2, num_query=4, seed=1, split="val"
    )
    found = [rows for _, rows in _episodes().take(4)]
    for b, rows in enumerate(found):
        _assert_same([rows], [sampler(3 * b, 3)])


def test_without_rows_only_episodes_are_yielded():
    alone = _arrays(_episodes(with_rows=False), 2)
    _assert_same(alone, [parts[:4] for parts in _arrays(_episodes(), 2)])


def test_a_table_of_embeddings_gives_the_episodes_of_its_features():
    options = {"way": 3, "shot": 2, "num_query": 4, "batch_size": 3}
    mine = episodes(_table(), **options, seed=1, split="val")
    _assert_same(_arrays(mine, 2), [parts[:4] for parts in _arrays(_episodes(), 2)])


@pytest.mark.parametrize("num_episodes", [None, 24, 23])
def test_starting_at_a_batch_equals_skipping_those_before(num_episodes):
    skipped = _arrays(_episodes(num_episodes=num_episodes).skip(5), 3)
    started = _arrays(_episodes(num_episodes=num_episodes, start=5), 3)
    _assert_same(started, skipped)
    assert len(started) == 3


def test_episodes_do_not_depend_on_the_batch_size():
    by_three = _arrays(_episodes(num_episodes=12), 4)
    by_four = _arrays(_episodes(num_episodes=12, batch_size=4), 3)
    _assert_same(_joined(by_three), _joined(by_four))


def test_a_fixed_number_of_episodes_ends_with_a_smaller_batch():
    batches = _arrays(_episodes(num_episodes=8), 9)
    assert [len(parts[0]) for parts in batches] == [3, 3, 2]
    _assert_same(_joined(batches), _joined(_arrays(_episodes(batch_size=8), 1)))


@pytest.mark.parametrize("num_episodes", [None, 9])
def test_shapes_are_static_if_the_batch_size_divides(num_episodes):
    episode, rows = _episodes(num_episodes=num_episodes).element_spec
    assert episode.support_inputs.shape == (3, 3, 2, D)
    assert episode.support_labels.shape == (3, 3, 2)
    assert episode.query_inputs.shape == (3, 3, 4, D)
    assert episode.query_labels.shape == (3, 3, 4)
    assert rows.classes.shape == (3, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"way": 5}, "classes for val: expected at least way = 5, received 4"),
        ({"num_query": 6}, r"shot \+ num_query = 2 \+ 6 or more rows .*: 'a' \(7\)"),
        ({"batch_size": 0}, "`batch_size`: expected an integer of 1 or more"),
        ({"start": -1}, "`start`: expected an integer of 0 or more, received -1"),
        ({"num_episodes": 0}, "`num_episodes`: expected an integer of 1 or more"),
    ],
)
def test_what_cannot_be_supplied_is_refused_before_the_first_batch(options, message):
    with pytest.raises(InputError, match=message):
        _episodes(**options)


def test_an_iterator_is_saved_and_restored_midway(tmp_path):
    # TensorFlow refuses this of any dataset that calls back into Python.
    iterator = iter(_episodes())
    next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(tmp_path / "iterator")
    expected = next(iterator)
    restored = iter(_episodes())
    tf.train.Checkpoint(iterator=restored).restore(path)
    _assert_same([tf.nest.flatten(next(restored))], [tf.nest.flatten(expected)])


def test_a_feature_table_lets_go_of_the_embedding_table():
    table = _table()
    alive = weakref.ref(table)
    features = FeatureTable.from_embeddings(table)
    del table
    gc.collect()
    assert alive() is None
    assert features.features.shape == (35, D)


@pytest.mark.parametrize("rows_per_block", [1, 8, 35])
def test_features_moved_in_blocks_are_the_normalised_table(monkeypatch, rows_per_block):
    table = _table()
    monkeypatch.setattr(embeddings, "_BLOCK_BYTES", rows_per_block * D * 4)
    features = FeatureTable.from_embeddings(table).features
    np.testing.assert_array_equal(features, table.normalized())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pipelines_share_one_copy_of_the_features():
    features = np.random.default_rng(0).random((80_000, 400), dtype=np.float32)
    size, names = features.nbytes, tuple("abcdefgh")

    def resident():
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / size

    def run(table, split):
        options = dict(way=5, shot=1, num_query=15, batch_size=2, seed=0)
        iterator = iter(episodes(table, split=split, **options))
        next(iterator)
        return iterator

    tiny = EmbeddingTable(features[:160].copy(), np.arange(160) % 8, names)
    warm = [run(FeatureTable.from_embeddings(tiny), "train")]

    gc.collect()
    # What tests before this one have freed goes back now, and not in between.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    start = resident() - 1  # less the raw features
    table = EmbeddingTable(features, np.arange(80_000) % 8, names)
    shared = FeatureTable.from_embeddings(table)
    del table, features
    built = resident() - start
    pipelines = [run(shared, split) for split in ("train", "val", "test")]
    used = resident() - start
    assert len(warm + pipelines) == 4  # all are alive
    assert 0.5 < built < 1.3 and 0.2 < used < 1.3, f"{built} tables built, {used} used"


def test_unbalanced_queries_come_with_their_own_labels_whatever_the_batches():
    table = FeatureTable.from_embeddings(_table())
    shape = {"way": 3, "shot": 2, "num_query": 4, "seed": 1, "split": "val"}
    shape |= {"num_episodes": 7, "query_dirichlet": 0.5}
    by_two, by_five = (
        EpisodesByRow(table, batch_size=size, **shape) for size in (2, 5)
    )
    rows = [_joined(_arrays(each.rows, 9)) for each in (by_two, by_five)]
    _assert_same(*rows)
    [[support, query, classes, labels]] = rows[0]
    of_row = np.empty(len(table.features), int)
    of_row[table.index.rows] = np.repeat(
        np.arange(len(table.index.class_sizes)), table.index.class_sizes
    )
    episodes = list(by_two)
    given = np.concatenate([each.query_labels for each in episodes])
    np.testing.assert_array_equal(given, labels)
    truth = np.take_along_axis(classes, labels.reshape(7, -1), axis=1)
    np.testing.assert_array_equal(of_row[query].reshape(7, -1), truth)
    assert np.all(of_row[support] == classes[..., np.newaxis])
    assert np.any(labels != np.arange(3)[:, np.newaxis])
    queries = np.concatenate([each.query_inputs for each in episodes])
    np.testing.assert_array_equal(queries, table.features.numpy()[query])
