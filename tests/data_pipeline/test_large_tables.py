"""Tests of tables whose features stay in their file."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline import dataset, large_tables
from leo_tf.data_pipeline import embeddings as module
from leo_tf.data_pipeline.embeddings import EmbeddingTable, mapping_of
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.formats import names
from leo_tf.data_pipeline.pipeline import FeatureTable, episodes
from leo_tf.errors import DiskError, InputError

_ROWS, _SIZE = 60, 7
LABELS = np.repeat(range(5), 12)


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch, tmp_path):
    monkeypatch.setenv("LEO_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LARGE_BYTES", 800)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 300)  # of some rows


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(_ROWS, _SIZE)).astype("f4")


def write(path, features, labels=LABELS):
    """Writes features as the suffix of a path says; returns the path."""
    if path.suffix == ".npy":
        np.save(path, features)
        np.save(path.with_name(f"{path.stem}_labels.npy"), labels)
    elif path.suffix == ".npz":
        np.savez(path, embeddings=features, labels=labels)
    else:
        _write_safetensors(path, {"embeddings": features, "labels": labels})
    return path


def _write_safetensors(path, arrays):
    header, body = {}, b""
    for name, array in arrays.items():
        word = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.itemsize)
        place = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": word, "shape": array.shape, "data_offsets": place}
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def copies(tmp_path):
    return sorted(path.suffix for path in (tmp_path / "cache").glob("tables/*"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
@pytest.mark.parametrize("stored", ["f4", "f2"])
def test_its_episodes_are_those_of_a_table_in_memory(tmp_path, features, name, stored):
    table = load(write(tmp_path / name, features.astype(stored)))
    assert mapping_of(table.embeddings) is not None
    known = EmbeddingTable(features.astype(stored), LABELS, table.class_names)
    same_episodes(table, known)
    assert copies(tmp_path) == [".json", ".npy"]


def same_episodes(table, known):
    """Compares digests and episodes of a mapped table and one in memory, to the bit."""
    assert table.digest == known.digest
    drawn = {"way": 3, "shot": 2, "num_query": 4, "batch_size": 2, "seed": 1}
    mine, theirs = (
        next(iter(episodes(each, split="train", **drawn))) for each in (table, known)
    )
    np.testing.assert_array_equal(mine.support_inputs, theirs.support_inputs)
    np.testing.assert_array_equal(mine.query_inputs, theirs.query_inputs)
    assert mine.support_inputs.dtype == "float32"


@pytest.mark.parametrize("lies_ready", [True, False])
def test_some_classes_of_it_stay_in_the_file(tmp_path, features, lies_ready):
    features = features.astype("f4" if lies_ready else "f2")
    mixed = np.tile(range(5), 12)
    table = load(write(tmp_path / "x.npy", features, mixed))
    assert large_tables.lies_ready(table) == lies_ready
    kept = np.array([True, True, False, True, True])
    part = table.with_classes(kept).with_classes(np.array([True, False, True, True]))
    assert mapping_of(part.embeddings) is mapping_of(table.embeddings)
    rows = np.isin(mixed, (0, 3, 4))
    labels = np.searchsorted((0, 3, 4), mixed[rows])
    same_episodes(part, EmbeddingTable(features[rows], labels, ("0", "3", "4")))


def test_splits_of_one_file_are_all_kept(tmp_path, features):
    table = load(write(tmp_path / "x.npy", features))
    for kept in ((1, 1, 0, 0, 0), (0, 0, 1, 1, 1)):
        FeatureTable.from_embeddings(table.with_classes(np.array(kept, bool)))
    assert copies(tmp_path) == [".json", ".json", ".npy", ".npy"]


def test_the_next_start_reads_no_row_and_has_the_same_features(
    tmp_path, features, monkeypatch
):
    path = write(tmp_path / "x.npy", features)
    first = FeatureTable.from_embeddings(load(path))
    digest = load(path).digest

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(EmbeddingTable, "check_rows", never)
    monkeypatch.setattr(EmbeddingTable, "unit", never)
    table = load(path)
    second = FeatureTable.from_embeddings(table)
    monkeypatch.setattr(EmbeddingTable, "digest_begun", never)
    assert table.digest == digest
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.scales, second.scales)


@pytest.mark.parametrize("stored", ["f4", "f2"])
def test_features_are_the_pages_of_a_file_and_no_memory(tmp_path, features, stored):
    path = write(tmp_path / "x.npy", features.astype(stored))
    table = FeatureTable.from_embeddings(load(path))
    if stored == "f2":  # a copy in float32
        [path] = (tmp_path / "cache" / "tables").glob("*.npy")
    changed = np.lib.format.open_memmap(path, "r+")
    changed[3] = 5.0
    changed.flush()
    assert (table.features.numpy()[3] == 5).all()


def test_of_a_file_whose_rows_can_be_used_little_is_kept(tmp_path, features):
    FeatureTable.from_embeddings(load(write(tmp_path / "x.npy", features)))
    [path] = (tmp_path / "cache" / "tables").glob("*.npy")
    assert np.load(path).shape == (_ROWS, 2)


def replace(path, features):
    """Puts another file in place of a mapped one, as the docs advise."""
    np.save(path.with_name("new.npy"), features)
    os.replace(path.with_name("new.npy"), path)


def test_a_file_replaced_after_loading_leaves_nothing_wrong_for_the_new_one(
    tmp_path, features
):
    path = write(tmp_path / "x.npy", features)
    before, other = load(path), 100 * features[::-1]
    replace(path, other)
    rows, digests = np.arange(_ROWS), []
    for table, expected in ((before, features), (load(path), other)):
        found = FeatureTable.from_embeddings(table).lookup(rows)
        np.testing.assert_array_equal(found, EmbeddingTable.unit(expected))
        digests.append(table.digest)
    assert digests[0] != digests[1]


def test_a_file_removed_after_loading_is_still_read(tmp_path, features):
    path = write(tmp_path / "x.npy", features)
    table = load(path)
    path.unlink()
    found = FeatureTable.from_embeddings(table).lookup(np.arange(_ROWS))
    np.testing.assert_array_equal(found, EmbeddingTable.unit(features))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1],
        lambda x: x.reshape(-1, _SIZE),
        lambda x: np.load(x.filename, mmap_mode="r"),
    ],
    ids=["reversed", "reshaped", "read-only"],
)
def test_what_users_map_themselves_is_read_as_they_see_it(tmp_path, features, view):
    np.save(tmp_path / "x.npy", features)
    mine = view(np.load(tmp_path / "x.npy", mmap_mode="c"))
    table = FeatureTable.from_embeddings(EmbeddingTable(mine, LABELS, tuple("abcde")))
    found = table.lookup(np.arange(_ROWS))
    np.testing.assert_array_equal(found, EmbeddingTable.unit(np.array(mine)))


def test_a_view_of_rows_that_were_mapped_by_loading_is_not_taken_for_all(
    tmp_path, features
):
    table = load(write(tmp_path / "x.npy", features))
    assert mapping_of(table.embeddings) is not None
    assert mapping_of(table.embeddings[::-1]) is None
    assert mapping_of(table.embeddings[1:]) is None


def test_numbers_too_small_to_divide_by_are_refused(tmp_path, features):
    features[3] = np.float32(1e-40) * np.arange(1, 8)
    table = load(write(tmp_path / "x.npy", features))
    with pytest.raises(InputError, match="expected a number of 1e-38 or more in every"):
        FeatureTable.from_embeddings(table)


@pytest.mark.parametrize(
    "suffix, content",
    [
        (".npy", b""),
        (".npy", b"PK\3\4aaaaaaaa"),
        (".npy", b"\x93NUMPY\1\0\x06\0{'a':("),  # what NumPy's parser cannot read
        (".json", b'{"digest": null}'),
    ],
)
def test_what_is_damaged_in_the_cache_is_made_again(
    tmp_path, features, suffix, content
):
    path = write(tmp_path / "x.npy", features)
    assert large_tables.prepared(first := load(path)) is not None
    [kept] = (tmp_path / "cache" / "tables").glob(f"*{suffix}")
    kept.write_bytes(content)
    again = load(path)
    FeatureTable.from_embeddings(again)
    assert again.digest == first.digest and kept.read_bytes() != content


def test_without_room_for_the_last_file_the_table_is_read_into_memory(
    tmp_path, features, monkeypatch
):
    write_file = large_tables.write_file

    def without_room(path, content):
        if path.suffix == ".json":
            raise DiskError(str(path), "to write", "No space left")
        write_file(path, content)

    monkeypatch.setattr(large_tables, "write_file", without_room)
    table = FeatureTable.from_embeddings(load(write(tmp_path / "x.npy", features)))
    assert table.mapping is None and copies(tmp_path) == []


def test_what_a_killed_start_left_is_removed_after_a_day(tmp_path, features):
    left = tmp_path / "cache" / "tables"
    left.mkdir(parents=True)
    # Without its JSON, a file of rows was finished, but not known to be.
    old = [left / ".a.npy.7", left / "a.npy"]
    new = [left / ".b.npy.8", left / "b.npy"]
    for path in (*old, *new):
        path.write_bytes(b"")
    for path in old:
        os.utime(path, (0, 0))
    FeatureTable.from_embeddings(load(write(tmp_path / "x.npy", features)))
    assert all(path.exists() for path in new)
    assert not any(path.exists() for path in old)


def test_another_content_makes_another_copy_and_the_older_one_goes(tmp_path, features):
    path = write(tmp_path / "x.npy", features)
    old = load(path)
    large_tables.prepared(old)
    np.save(path, 2 * features[::-1])
    os.utime(path, ns=(1, 1))
    new = load(path)
    rows = FeatureTable.from_embeddings(new).lookup(range(_ROWS))
    expected = features[::-1] / np.linalg.norm(features[::-1], axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert new.digest != old.digest and copies(tmp_path) == [".json", ".npy"]


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "row 41 is non-finite"), (0.0, "row 41 is all zer")]
)
def test_a_bad_row_is_named_and_nothing_is_kept(tmp_path, features, value, message):
    features[41] = value
    table = load(write(tmp_path / "x.npy", features))
    with pytest.raises(InputError, match=rf"x.npy: `embeddings`.*{message}"):
        FeatureTable.from_embeddings(table)
    assert copies(tmp_path) == []


def test_what_a_kill_leaves_is_written_again(tmp_path, features):
    path = write(tmp_path / "x.npy", features)
    rows = np.array(large_tables.prepared(load(path)))
    [metadata] = (tmp_path / "cache" / "tables").glob("*.json")
    metadata.unlink()
    metadata.with_suffix(".npy").write_bytes(b"half a")
    np.testing.assert_array_equal(large_tables.prepared(load(path)), rows)
    metadata.with_suffix(".npy").write_bytes(b"damaged")  # JSON is there, rows are not
    np.testing.assert_array_equal(large_tables.prepared(load(path)), rows)
    assert json.loads(metadata.read_text())["source"] == str(path)


def test_without_room_for_a_copy_it_is_read_into_memory(
    tmp_path, features, monkeypatch, capsys
):
    table = load(write(tmp_path / "x.npy", features))
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    made = FeatureTable.from_embeddings(table, Console())
    assert "x.npy is read into memory" in capsys.readouterr().err
    np.testing.assert_array_equal(made.features, table.in_memory().normalized())
    features[5] = 0
    table = load(write(tmp_path / "x.npy", features))
    with pytest.raises(InputError, match="row 5 is all zeros"):
        FeatureTable.from_embeddings(table)


def test_without_room_the_data_of_a_run_is_read_and_said_once(
    tmp_path, features, monkeypatch, capsys
):
    labels = np.repeat([f"c{i}" for i in range(4)], len(features) // 4)
    np.savez(tmp_path / "test.npz", embeddings=features[: len(labels)], labels=labels)
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    config = Config().replace(data_path=str(tmp_path), way=2, num_query=1)
    split = dataset.load(config, ["test"], console=Console())["test"]
    assert capsys.readouterr().err.count("is read into memory") == 1
    assert split.table.mapping is None and split.digest


def test_what_cannot_be_mapped_or_is_small_is_read(tmp_path, features, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", embeddings=features, labels=LABELS)
    np.save(tmp_path / "b.npy", np.asfortranarray(features))
    np.save(tmp_path / "b_labels.npy", LABELS)
    write(tmp_path / "z.npy", features.astype(">f4"))
    for name in ("x.npz", "b.npy", "z.npy"):
        table = load(tmp_path / name)
        assert mapping_of(table.embeddings) is None
        np.testing.assert_array_equal(table.embeddings, features)
    monkeypatch.setattr(module, "LARGE_BYTES", 1 << 30)
    assert mapping_of(load(write(tmp_path / "a.npy", features)).embeddings) is None


def test_a_stored_array_that_ends_after_its_file_is_refused(tmp_path, features):
    path = write(tmp_path / "x.npz", features)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    begin = int.from_bytes(content[entry + 42 : entry + 46], "little")
    # The name in the member's own header is said to be longer than all that is left.
    content[begin + 26 : begin + 28] = (60_000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: `embeddings`"):
        load(path)


def test_labels_of_many_rows_make_no_object_for_each(tmp_path, features, monkeypatch):
    path = write(tmp_path / "x.npz", features)
    seen = []
    of = names.names_of_classes
    monkeypatch.setattr(
        names, "names_of_classes", lambda some, where: seen.append(some) or of(some, "")
    )
    assert load(path).labels.tolist() == LABELS.tolist()
    assert seen == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        np.random.default_rng(0).permutation(LABELS) - 2,
        np.random.default_rng(0).permutation(LABELS).astype("f4"),
        np.random.default_rng(0).permutation(LABELS).astype("U"),
        np.repeat([b"b", b"\xe9", b"b", b"a"], 15),
    ],
)
def test_labels_are_numbered_as_their_names_are(labels):
    found, class_names = names.index_array(labels, "", InputError)
    texts = names.decode_names(
        [x if isinstance(x, bytes) else str(int(x)) for x in labels.tolist()]
    )
    expected, expected_names = names.index_classes(texts)
    assert class_names == expected_names
    np.testing.assert_array_equal(found, expected)


def test_splits_made_of_one_file_all_lie_in_it(tmp_path, features, monkeypatch):
    path = write(tmp_path / "x.npy", features, np.tile(range(10), 6))
    config = Config().replace(
        **{"dataset_name": "x", "data_path": str(path), "class_split": "0.4,0.3,0.3"},
        **{"way": 2, "num_query": 2},
    )
    mine = dataset.load(config)
    assert {split.table.mapping.filename for split in mine.values()} == {str(path)}
    monkeypatch.setattr(module, "LARGE_BYTES", 1 << 30)
    for name, theirs in dataset.load(config).items():
        assert mine[name].digest == theirs.digest
        rows = tf.range(theirs.table.shape[0])
        found = mine[name].table.lookup(rows)
        np.testing.assert_array_equal(found, theirs.table.lookup(rows))
