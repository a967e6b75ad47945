"""Features shared by processes: equal to the last bit, mapped, checked by others."""

import os

import numpy as np
import psutil
import pytest
import tensorflow as tf

from leo_tf import files
from leo_tf.data_pipeline import embeddings
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.errors import InputError
from leo_tf.experiments.runner import features


def split_of(rows=9, size=5, dtype="float32", images=True) -> Split:
    rng = np.random.default_rng(0)
    table = EmbeddingTable(
        rng.normal(size=(rows, size)),
        np.arange(rows) % 3,
        ("a", "b", "ü"),
        images=np.uint8(rng.integers(0, 255, [rows, 4, 4])) if images else None,
        source="somewhere",
        dtype=dtype,
    )
    resident = FeatureTable.from_embeddings(table)
    names = table.class_names
    return Split("val", resident, names, table.images, table.digest, table.source)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_read_is_what_was_written(tmp_path, dtype):
    split = split_of(dtype=dtype)
    digest = features.write(tmp_path, "alone", {"val": split})
    features.check(tmp_path, "alone", digest)
    again = features.read(tmp_path, "alone")["val"]
    assert again.table.features.dtype == dtype
    assert again.table.features.device.endswith("CPU:0")
    np.testing.assert_array_equal(again.table.features, split.table.features)
    for mine, theirs in zip(again.table.index, split.table.index):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(again.images, split.images)
    assert again._replace(table=0, images=0) == split._replace(table=0, images=0)
    none = {"val": split_of(images=False)}
    features.write(tmp_path, "other", none)
    assert features.read(tmp_path, "other")["val"].images is None


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Some classes of a table that is mapped, and its file."""
    monkeypatch.setenv("LEO_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embeddings, "LARGE_BYTES", 800)
    rows = np.random.default_rng(0).normal(size=(60, 7)).astype("f4")
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "x_labels.npy", np.arange(60) % 5)
    table = load(tmp_path / "x.npy").with_classes(np.arange(5) != 2)
    features = FeatureTable.from_embeddings(table)
    names = table.class_names
    split = Split("train", features, names, None, table.digest, table.source)
    return split, tmp_path / "x.npy"


def test_a_table_that_is_mapped_already_is_not_copied(tmp_path, large):
    split, path = large
    digest = features.write(tmp_path, "alone", {"train": split})
    assert not (tmp_path / "alone_train.npy").exists()
    features.check(tmp_path, "alone", digest)
    again = features.read(tmp_path, "alone")["train"]
    rows = tf.range(split.table.shape[0])
    mine, theirs = again.table.lookup(rows), split.table.lookup(rows)
    np.testing.assert_array_equal(mine, theirs)
    assert again.table.shape == (48, 7) and again.table.mapping.filename == str(path)


def test_a_mapped_file_that_changed_meanwhile_is_refused(tmp_path, large):
    split, path = large
    digest = features.write(tmp_path, "alone", {"train": split})
    os.utime(path, ns=(1, 1))
    for refused in (
        lambda: features.read(tmp_path, "alone"),
        lambda: features.check(tmp_path, "alone", digest),
    ):
        with pytest.raises(InputError, match=r"x\.npy: expected size and time"):
            refused()
    path.unlink()
    with pytest.raises(InputError, match="All machines need it"):
        features.check(tmp_path, "alone", digest)


def test_a_copy_of_what_cannot_be_used_in_place_is_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("LEO_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embeddings, "LARGE_BYTES", 800)
    rows = np.random.default_rng(0).normal(size=(60, 7)).astype("f2")
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "x_labels.npy", np.arange(60) % 5)
    table = load(tmp_path / "x.npy")
    mine = FeatureTable.from_embeddings(table)
    split = Split("train", mine, table.class_names, None, table.digest, table.source)
    digest = features.write(tmp_path, "alone", {"train": split})
    assert not (tmp_path / "alone_train.npy").exists()
    features.check(tmp_path, "alone", digest)
    again = features.read(tmp_path, "alone")["train"].table
    every = tf.range(60)
    np.testing.assert_array_equal(again.lookup(every), mine.lookup(every))


def test_what_was_read_can_be_shared_again_and_is_not_copied(tmp_path):
    features.write(tmp_path, "alone", {"val": split_of()})
    alone = features.read(tmp_path, "alone")
    digest = features.write(tmp_path, "joined", {**alone, "train": split_of(12)})
    assert sorted(tmp_path.glob("joined*.npy")) == sorted(
        tmp_path / f"joined_{part}.npy"
        for part in (
            *("train", "train_rows", "train_sizes", "train_images"),
            *("val_rows", "val_sizes", "val_images"),
        )
    )
    features.check(tmp_path, "joined", digest)
    again = features.read(tmp_path, "joined")["val"]
    np.testing.assert_array_equal(again.table.features, alone["val"].table.features)


def test_a_mapped_file_replaced_before_the_runs_begin_is_refused(tmp_path, large):
    split, path = large
    np.save(tmp_path / "new.npy", np.ones([60, 7], "f4"))
    os.replace(tmp_path / "new.npy", path)
    with pytest.raises(InputError, match=r"x\.npy: expected size, time and inode"):
        features.write(tmp_path, "alone", {"train": split})


def test_mapped_features_take_no_memory_until_they_are_used(tmp_path):
    split = split_of(rows=60_000, size=256, images=False)  # 61 MB
    features.write(tmp_path, "alone", {"val": split})
    own = psutil.Process().memory_full_info().uss
    mapped = features.read(tmp_path, "alone")["val"].table.features
    row = tf.gather(mapped, [59_999])
    assert psutil.Process().memory_full_info().uss - own < 8 * 2**20
    np.testing.assert_array_equal(row[0], split.table.features[59_999])


@pytest.mark.parametrize("damage", ["changed", "missing", "another"])
def test_other_data_than_the_drivers_is_refused(tmp_path, damage):
    digest = features.write(tmp_path, "alone", {"val": split_of()})
    path = tmp_path / "alone_val.npy"
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    else:
        path = tmp_path / "alone.json"
        features.write(tmp_path, "alone", {"val": split_of(rows=12)})
    with pytest.raises(InputError, match="one shared file system") as caught:
        features.check(tmp_path, "alone", digest)
    assert caught.value.where == str(path)


def test_nobody_waits_for_the_disk_to_share_features(tmp_path, monkeypatch):
    def flush(path):
        raise AssertionError(f"{path} is only for this job")

    monkeypatch.setattr(files, "flush_to_disk", flush)
    digest = features.write(tmp_path, "alone", {"val": split_of()})
    features.check(tmp_path, "alone", digest)
