"""Checks splits against each other, joins them, and makes them from classes."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from leo_tf.configs.rules import shares_in
from leo_tf.configs.settings import DataConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.conversions import rewrite_advice
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.files import read_json

_CLASSES_SHOWN = 3
_MOST_NAME_BYTES = 1 << 24  # of a JSON file of class names
_NUMBERS_HINT = (
    "If the numbers restart in each split, make them distinct, for example "
    'labels = [f"train{label}" for label in labels].'
)


def join(tables: list[EmbeddingTable]) -> EmbeddingTable:
    """Returns one table of all rows, as the release's `train_on_val` joins two.

    Raises:
      InputError: if a class or an example name is in two tables, or sizes differ.
    """
    check_splits(tables)
    first = [0, *np.cumsum([table.num_classes for table in tables])[:-1]]

    def joined(arrays):
        arrays = list(arrays)
        return None if any(a is None for a in arrays) else np.concatenate(arrays)

    return EmbeddingTable(
        embeddings=joined(table.embeddings for table in tables),
        labels=joined(table.labels + start for table, start in zip(tables, first)),
        class_names=tuple(name for table in tables for name in table.class_names),
        names=joined(table.names for table in tables),
        images=joined(table.images for table in tables),
        source=" + ".join(table.source for table in tables),
        dtype=tables[0].dtype,
    )


def hold_out(
    table: EmbeddingTable, count: int, console: Console
) -> tuple[EmbeddingTable, EmbeddingTable]:
    """Moves `count` classes from train to val; returns (train, val).

    The digests of their names choose them, so no seed and no order of rows matters.

    Raises:
      FlagError: if train would keep no class.
    """
    if count >= table.num_classes:
        expected = f"below {table.num_classes}, the classes of {table.source}"
        raise FlagError("--val_classes", expected, str(count))
    digests = [
        hashlib.sha256(n.encode("utf-8", "surrogatepass")).digest()
        for n in table.class_names
    ]
    taken = np.zeros(table.num_classes, bool)
    taken[sorted(range(len(digests)), key=digests.__getitem__)[:count]] = True
    val = dataclasses.replace(
        table.with_classes(taken), source=f"{table.source} (val_classes)"
    )
    names = ", ".join(map(quoted, val.class_names))
    console.say(f"{count} of {table.num_classes} classes of train are val: {names}")
    return table.with_classes(~taken), val


def split_classes(
    class_names: Sequence[str], settings: DataConfig, console: Console = SILENT
) -> tuple[str, ...]:
    """Returns the split of each class, by `class_split` or `class_folds`.

    Digests of `split_seed` and the name put the classes in an order that is cut into
    parts. So no order of rows matters, nor `seed`: runs of several seeds test on the
    same classes. One class more moves at most one other over each of the cuts.

    Args:
      class_names: [C] of the classes; any order gives the same splits.
      settings: the division. With shares, test is cut off first, then val. Fold i has
        part i as test and the next part as val.
      console: reports classes that a file of names leaves out.

    Returns:
      [C] "train", "val" or "test", or "" of a class that a file of names leaves out.

    Raises:
      FlagError: if there are too few classes, or settings contradict each other.
      InputError: if the file of names is malformed or names an unknown class.
    """
    if settings.class_split and settings.class_folds:
        both = f"--class_folds={settings.class_folds} too"
        raise FlagError("--class_split", "one way to divide the classes", both)
    if settings.class_folds:
        return _by_fold(class_names, settings)
    if (shares := shares_in(settings.class_split)) is None:
        return _by_file(class_names, settings.class_split, console)
    total = len(class_names)
    val, test = (round(share * total) for share in shares[1:])
    if not min(val, test, total - val - test) > 0:
        expected = "shares that give each split a class"
        received = f"{total - val - test}, {val} and {test} of {total} classes"
        raise FlagError("--class_split", expected, received)
    sizes = {"test": test, "val": val, "train": total - val - test}
    return _in_turn(
        class_names, settings.split_seed, np.repeat(list(sizes), [*sizes.values()])
    )


def share_classes(
    table: EmbeddingTable, settings: DataConfig, console: Console = SILENT
) -> dict[str, EmbeddingTable]:
    """Divides a table of all classes into splits; see `split_classes`."""
    splits = np.array(split_classes(table.class_names, settings, console))
    return {split: table.with_classes(splits == split) for split in SPLITS}


def check_splits(tables: list[EmbeddingTable]) -> None:
    """Raises if splits share a class or differ in embedding size.

    Raises:
      InputError: naming both files and the first few shared classes.
    """
    for i, table in enumerate(tables):
        for earlier in tables[:i]:
            if table.embedding_size != earlier.embedding_size:
                expected = f"D = {earlier.embedding_size} as in {earlier.source}"
                where = f"{table.source}: `embeddings`"
                raise InputError(where, expected, f"D = {table.embedding_size}")
            shared = sorted(set(table.class_names) & set(earlier.class_names))
            if shared:
                few = ", ".join(quoted(name) for name in shared[:_CLASSES_SHOWN])
                expected = f"no class of {earlier.source}"
                received = f"{len(shared)} shared, first {few}"
                are_numbers = all(map(str.isdecimal, shared))
                hint = _numbers_hint(table.source) if are_numbers else ""
                raise InputError(f"{table.source}: classes", expected, received, hint)


def _by_fold(class_names: Sequence[str], settings: DataConfig) -> tuple[str, ...]:
    folds, fold, total = settings.class_folds, settings.fold, len(class_names)
    if fold is None or fold >= folds:
        received = "nothing" if fold is None else str(fold)
        hint = "--mode=compare without --fold runs them all." if fold is None else ""
        raise FlagError("--fold", f"a number from 0 to {folds - 1}", received, hint)
    if folds > total:
        expected = f"at most {total}, the number of classes"
        raise FlagError("--class_folds", expected, str(folds))
    part = np.arange(total) * folds // total
    splits = np.where(part == fold, "test", "train")
    splits[part == (fold + 1) % folds] = "val"
    return _in_turn(class_names, settings.split_seed, splits)


def _in_turn(
    class_names: Sequence[str], seed: int, splits: np.ndarray
) -> tuple[str, ...]:
    """Assigns [C] splits to the classes in the order of their digests."""
    keys = (f"{seed}/{name}".encode("utf-8", "surrogatepass") for name in class_names)
    digests = [hashlib.sha256(key).digest() for key in keys]
    given = dict(zip(sorted(digests), splits.tolist()))
    return tuple(given[digest] for digest in digests)


def _by_file(
    class_names: Sequence[str], path: str, console: Console
) -> tuple[str, ...]:
    path = os.path.expanduser(path)
    expected = '{"train": [names], "val": [names], "test": [names]}'
    try:
        found = read_json(pathlib.Path(path), _MOST_NAME_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(path, f"a JSON file: {expected}", quoted(str(error))) from None
    if not isinstance(found, dict) or set(found) != set(SPLITS):
        has_names = isinstance(found, dict) and found
        received = ", ".join(map(quoted, found)) if has_names else quoted(found)
        raise InputError(path, expected, received)
    split_of: dict[str, str] = {}
    for split, names in found.items():
        where = f"{path}: `{split}`"
        if not isinstance(names, list) or not names:
            raise InputError(where, "a list of names of classes", quoted(names))
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise InputError(where, "names of classes", quoted(name))
            if str(name) in split_of:
                received = f"{quoted(name)} again"
                raise InputError(where, "each class in one split", received)
            split_of[str(name)] = split
    if unknown := sorted(set(split_of) - set(class_names)):
        few = ", ".join(map(quoted, unknown[:_CLASSES_SHOWN]))
        there = ", ".join(map(quoted, class_names[:_CLASSES_SHOWN]))
        received = f"{len(unknown)} others, first {few}"
        raise InputError(path, f"classes of the data, as {there}", received)
    if left_out := [name for name in class_names if name not in split_of]:
        few = ", ".join(map(quoted, left_out[:_CLASSES_SHOWN]))
        few += ", ..." * (len(left_out) > _CLASSES_SHOWN)
        console.say(f"{path}: leaves out {len(left_out)} classes: {few}")
    return tuple(split_of.get(name, "") for name in class_names)


def _numbers_hint(source: str) -> str:
    """Returns how to make the class numbers of a split distinct."""
    if not source.endswith(".npz"):
        return _NUMBERS_HINT
    split = os.path.basename(source).removesuffix(".npz")
    change = (
        f".astype(int).astype(str); d['labels'] = np.char.add({split!a}, d['labels'])"
    )
    note = "If the numbers restart in each split, make them distinct."
    return f"{note} {rewrite_advice(source, 'labels', change)}"
