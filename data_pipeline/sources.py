"""Loads data from arrays, files or the embedded glyphs as one `Data`."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.schema import EMBEDDED_DATASET, DataConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.arrays import table_of, tables_of
from leo_tf.data_pipeline.embeddings import EmbeddingTable, in_words
from leo_tf.data_pipeline.feature_files import load, save_npz
from leo_tf.data_pipeline.formats.array_tables import splits_in
from leo_tf.data_pipeline.release_layout import (
    SPLITS,
    check_crop,
    dataset_of,
    find_files,
)
from leo_tf.data_pipeline.splits import check_splits, hold_out, share_classes
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.files import AnyPath

# Settings that divide classes into train, val and test.
SPLITTING = ("val_classes", "class_split", "class_folds", "fold", "split_seed")
_WITHOUT_SPLITS = "data of one file, which holds all classes without splits"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data(Mapping[str, EmbeddingTable]):
    """Splits of a data set by name, and their source; see `load_data`."""

    tables: Mapping[str, EmbeddingTable]  # by split, some of "train", "val" and "test"
    source: DataConfig  # the settings that name the data
    in_memory: bool = False  # from arrays, so no file can be read again

    def settings(self) -> dict[str, Any]:
        """Returns the settings that name this data, for `Config.replace`."""
        names = "dataset_name", "data_path", "embedding_crop", "trust_data_files"
        return {name: getattr(self.source, name) for name in (*names, *SPLITTING)}

    def __getitem__(self, name: str) -> EmbeddingTable:
        return self.tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __repr__(self) -> str:
        found = [f"{name}: {in_words(self[name].class_sizes)}" for name in self]
        return f"Data({self.source.dataset_name!r}, {', '.join(found)})"


def load_data(
    source: Mapping[str, Any] | tuple | EmbeddingTable | AnyPath | None = None,
    *,
    dataset_name: str | None = None,
    embedding_crop: str = "center",
    dtype: str = "float32",
    val_classes: int = 0,
    class_split: str = "",
    class_folds: int = 0,
    fold: int | None = None,
    split_seed: int = 0,
    trust_data_files: bool = False,
    console: Console = SILENT,
) -> Data:
    """Loads the splits of a data set, and checks them.

    Args:
      source: arrays, as {"train": (x, y), "val": (x, y), "test": (x, y)} with x of
        numbers [rows, D] and y of class names or numbers [rows], no class in two
        splits; in place of a pair an `EmbeddingTable` will do. Or one pair (x, y) of
        all classes, with `class_split` or `class_folds`. Or the path of a directory or
        a file as docs/data_formats.md describes them. Or None for the embedded glyphs.
        Arrays are copied.
      dataset_name: name of the data set, below a path and in reports.
      embedding_crop: "center" or "multiview", in the release's layout.
      dtype: "float32" or "float64", to which the features are converted.
      val_classes: number of training classes to move to val, for data without val.
      class_split: shares of the classes for train, val and test, "0.64,0.16,0.2", or
        the path of a JSON file of names, where the data has no splits.
      class_folds, fold: number of folds to divide the classes into instead, and the
        fold to test, counted from 0.
      split_seed: seed of the division of classes.
      trust_data_files: reads Parquet and Arrow files too; see `feature_files`.
      console: shows progress; by default nothing is printed.

    Returns:
      One table per split, with classes numbered in the order of their names.

    Raises:
      InputError: if the data is invalid or missing.
      FlagError: if the name, the crop or the dtype is invalid.
    """
    named = DataConfig(embedding_crop=embedding_crop, dtype=dtype)  # the glyphs
    are_arrays = isinstance(source, Mapping | tuple | EmbeddingTable)
    if are_arrays:
        named = dataclasses.replace(named, dataset_name="arrays")
    elif source is not None:
        named = dataclasses.replace(named, data_path=_absolute(source))
        named = dataclasses.replace(named, dataset_name=dataset_of(named))
        named = dataclasses.replace(named, trust_data_files=trust_data_files)
    if dataset_name is not None:
        named = dataclasses.replace(named, dataset_name=dataset_name)
    if isinstance(class_split, str) and class_split.lower().endswith(".json"):
        class_split = _absolute(class_split)
    splitting = dataclasses.replace(
        named,
        val_classes=val_classes,
        class_split=class_split,
        class_folds=class_folds,
        fold=fold,
        split_seed=split_seed,
    )
    if are_arrays:  # the run keeps its copy of them split
        return Data(_of_arrays(source, splitting, console), named, in_memory=True)
    return Data(read(splitting, console=console), splitting)


def read(
    named: DataConfig, wanted: Sequence[str] = SPLITS, console: Console = SILENT
) -> dict[str, EmbeddingTable]:
    """Reads splits of the data set that settings name.

    Raises:
      InputError: if a file is missing or not what it should be, or splits share a
        class or differ in embedding size.
      FlagError: if the settings name no data.
    """
    # Without train and val (a test on other data) nothing is held out.
    held = named.val_classes if {"train", "val"} & set(wanted) else 0
    check_alone(named)
    if named.is_embedded:
        check_crop(named)
        if held:
            _refuse_val("data without val", f"{EMBEDDED_DATASET}, which has one")
        if named.shares_classes:
            _refuse_sharing(named, f"{EMBEDDED_DATASET}, which has splits")
        from leo_tf.data_pipeline.glyphs.dataset import load_splits

        tables = load_splits(dtype=named.dtype, console=console)
        return {name: tables[name] for name in wanted}
    if not named.data_path:
        expected = f"the directory or file of {named.dataset_name}"
        hint = f"Only {EMBEDDED_DATASET} is embedded."
        raise FlagError("--data_path", expected, "nothing", hint)
    names = [n for n in SPLITS if n in wanted or (held and n == "train")]
    names = [n for n in names if not (held and n == "val")]
    files, hold_all = find_files(named, names)
    if named.shares_classes:
        if hold_all and not splits_in(files[names[0]]):
            table = load(files[names[0]], None, named.dtype, named.trust_data_files)
            tables = share_classes(table, named, console)
            return {name: tables[name] for name in wanted}
        if {"train", "val"} & set(wanted):
            _refuse_sharing(named, f"{named.data_path}, which has splits")
    options = named.dtype, named.trust_data_files
    tables = {n: load(f, n if hold_all else None, *options) for n, f in files.items()}
    check_splits(list(tables.values()))
    if held:
        if _has_val(named):
            _refuse_val("data without val", f"{named.data_path}, which has one")
        train, val = hold_out(tables["train"], held, console)
        tables |= {"train": train, "val": val}
    return {name: tables[name] for name in wanted}


def _of_arrays(
    source: Any, splitting: DataConfig, console: Console
) -> dict[str, EmbeddingTable]:
    """Returns tables of arrays, with classes split as `splitting` says."""
    check_alone(splitting)
    check_crop(splitting)
    if not isinstance(source, Mapping):
        if not splitting.shares_classes:
            expected = 'a mapping {"train": (x, y), ...} of splits'
            hint = 'class_split="0.64,0.16,0.2" divides the classes of one (x, y).'
            raise InputError("`source` of data", expected, "one of all classes", hint)
        return share_classes(
            table_of("all", source, splitting.dtype), splitting, console
        )
    if splitting.shares_classes:
        _refuse_sharing(splitting, ", ".join(map(str, source)))
    tables, held = tables_of(source, splitting.dtype), splitting.val_classes
    if held:
        if "train" not in tables or "val" in tables:
            _refuse_val("arrays with train and without val", ", ".join(tables))
        train, val = hold_out(tables.pop("train"), held, console)
        tables = {"train": train, "val": val, **tables}
    return tables


def check_alone(named: DataConfig) -> None:
    """Refuses settings of splits that would have no effect."""
    if named.val_classes and named.shares_classes:
        flag = "class_split" if named.class_split else "class_folds"
        _refuse_val(f"0, because --{flag} makes a val split", str(named.val_classes))
    if named.fold is not None and not named.class_folds:
        hint = "--class_folds=5 makes five folds."
        raise FlagError("--fold", "--class_folds with it", str(named.fold), hint)
    if named.split_seed and not named.shares_classes:
        expected, seed = "--class_split or --class_folds with it", str(named.split_seed)
        raise FlagError("--split_seed", expected, seed, "No split is drawn.")


def _has_val(named: DataConfig) -> bool:
    """Tells whether data with a readable train also has a val split."""
    try:
        files, hold_all = find_files(named, ("train", "val"))
    except InputError:
        return False
    return not hold_all or "val" in splits_in(files["val"])


def _refuse_sharing(named: DataConfig, received: str) -> None:
    flag = "--class_split" if named.class_split else "--class_folds"
    raise FlagError(flag, _WITHOUT_SPLITS, received, f"Leave {flag} out.")


def _refuse_val(expected: str, received: str) -> None:
    raise FlagError("--val_classes", expected, received, "Leave --val_classes out.")


def write_data(data: Data, directory: AnyPath) -> None:
    """Writes each split without its pictures as an .npz file in `directory`.

    Reading the files gives tables with the same digests.

    Raises:
      InputError, DiskError: see `save_npz`.
    """
    for name, table in data.items():
        save_npz(pathlib.Path(directory, f"{name}.npz"), table)


def _absolute(source: object) -> str:
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    if not path:
        received = quoted(source) if source == "" else type(source).__name__
        expected = "a mapping of splits to arrays, a path, or None"
        raise InputError("`source` of data", expected, received)
    rules.path().checked(path, "`source` of data")
    return os.path.abspath(os.path.expanduser(path))
