"""Parquet, Arrow and folders of `datasets` are read if the user trusts them."""

import json

import numpy as np
import pytest

from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.sources import load_data
from leo_tf.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")
parquet = pytest.importorskip("pyarrow.parquet")

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = ["b", "a", "b", "10", "a", "b"]


def table(kind="fixed", labels=Y, **more):
    if kind == "columns":
        columns = {f"f{i}": x for i, x in enumerate(X.T)}
    elif kind == "fixed":
        flat = pyarrow.array(X.ravel())
        columns = {"x": pyarrow.FixedSizeListArray.from_arrays(flat, 4), "text": Y}
    else:
        columns = {"x": pyarrow.array(list(X.astype("f8"))), "id": range(6)}
    return pyarrow.table({**columns, "label": labels, **more})


def write_stream(path, table, rows=6):
    with ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_file(path, table):
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def is_whole(path, classes=Y) -> bool:
    found = load(path, trust_data_files=True)
    np.testing.assert_array_equal(found.embeddings, X)
    assert found.embeddings.dtype == np.float32
    return [found.class_names[label] for label in found.labels] == list(classes)


@pytest.mark.parametrize("kind", ["columns", "fixed", "lists"])
def test_features_in_columns_and_in_lists_are_read(tmp_path, kind):
    parquet.write_table(table(kind), tmp_path / "a.parquet", row_group_size=4)
    assert is_whole(tmp_path / "a.parquet")
    write_file(tmp_path / "b.arrow", table(kind))
    assert is_whole(tmp_path / "b.arrow")
    write_stream(tmp_path / "c.arrow", table(kind), rows=4)
    assert is_whole(tmp_path / "c.arrow")


def test_a_table_of_pandas_is_read_without_its_row_numbers(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd")).assign(label=Y)
    frame["label"] = frame["label"].astype("category")
    frame.sample(6, random_state=0).sort_index().to_parquet(tmp_path / "a.parquet")
    assert is_whole(tmp_path / "a.parquet")


def test_a_file_that_nobody_trusts_is_not_parsed(tmp_path):
    parquet.write_table(table(), tmp_path / "a.parquet")
    write_stream(tmp_path / "b.arrow", table())
    (tmp_path / "state.json").write_text("{}")
    for name in ("a.parquet", "b.arrow", "state.json"):
        with pytest.raises(InputError, match=f"{name}: expected --trust_data_files"):
            load(tmp_path / name)


def saved(folder, numbers) -> None:
    """Saves a split as `datasets` does: two files, and the names of the classes."""
    folder.mkdir(parents=True)
    features = {"label": {"names": ["cat", "dog", "emu"], "_type": "ClassLabel"}}
    kept = json.dumps({"info": {"features": features}})
    whole = table("lists", numbers).replace_schema_metadata({"huggingface": kept})
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    write_stream(folder / names[0], whole.slice(0, 2))
    write_stream(folder / names[1], whole.slice(2))
    state = {"_data_files": [{"filename": n} for n in names], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("number", [-1, -100])
def test_rows_without_a_class_are_not_those_of_the_last(tmp_path, number):
    saved(tmp_path / "one", [0, 0, 1, number, 2, 2])
    with pytest.raises(InputError, match=f"numbers of classes, received {number}"):
        load(tmp_path / "one" / "state.json", trust_data_files=True)


def test_a_folder_of_datasets_is_read_with_the_names_of_its_classes(tmp_path):
    numbers = [0, 0, 1, 1, 2, 2]
    saved(tmp_path / "one", numbers)
    classes = ["cat", "cat", "dog", "dog", "emu", "emu"]
    assert is_whole(tmp_path / "one" / "state.json", classes)
    options = {"trust_data_files": True, "class_split": "0.34,0.33,0.33"}
    data = load_data(tmp_path / "one", **options)
    assert sorted(name for split in data for name in data[split].class_names) == [
        *("cat", "dog", "emu")
    ]
    for number, split in enumerate(("train", "validation", "test")):
        saved(tmp_path / "three" / split, [number] * 6)
    data = load_data(tmp_path / "three", trust_data_files=True)
    assert [data[split].class_names for split in data] == [("cat",), ("dog",), ("emu",)]
    assert data.settings()["trust_data_files"] is True
    assert data.source.dataset_name == "three"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [None, *Y[1:]]}, "`label`: expected all integers or all text"),
        ({"class": Y}, "one column of label, class, y, target"),
        ({"x": [[1.0], [2.0], [3.0], [4.0], [5.0], []]}, "lists of one length"),
        ({"x": [[1.0], [2.0], [3.0], [4.0], [5.0], [None]]}, "1 missing ones"),
        ({"x": [["a"]] * 6}, "`x`: expected numbers, received a column of string"),
        ({"other": [[1.0]] * 6}, "one column of lists, or columns of numbers"),
        ({"kind": "columns", "f1": Y}, "`f1`: expected numbers"),
        ({"x": [[np.nan]] * 6}, "non-finite"),
        ({"x": [{"list": [1.0]}] * 6}, "`x`: expected numbers, received a column of"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_its_column(tmp_path, changes, said):
    parquet.write_table(table(**changes), tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.parquet", trust_data_files=True)
    assert said in str(caught.value)


def test_two_columns_of_one_name_are_refused(tmp_path):
    for names in (["label", "f", "f"], ["label", "label", "f"]):
        twice = pyarrow.table([Y, [1.0] * 6, [2.0] * 6], names=names)
        parquet.write_table(twice, tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"every column once, received .* again"):
            load(tmp_path / "a.parquet", trust_data_files=True)


def test_what_is_damaged_or_indexed_is_refused(tmp_path):
    parquet.write_table(table(), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:-20])
    with pytest.raises(InputError, match="an undamaged file"):
        load(tmp_path / "a.parquet", trust_data_files=True)
    for state, said in (
        ({"_indices_files": [1]}, "flatten_indices"),
        ({}, "undamaged"),
        ({"_data_files": [{"filename": "../none.arrow"}]}, "No such file"),
        ([], "a state of `datasets`"),
    ):
        (tmp_path / "state.json").write_text(json.dumps(state))
        with pytest.raises(InputError, match=said):
            load(tmp_path / "state.json", trust_data_files=True)
