"""Tables of several splits: held against each other, joined, and taken apart."""

import dataclasses
import hashlib
import os

import numpy as np

from leo_tf.console import Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.conversions import rewrite_advice
from leo_tf.errors import FlagError, InputError, shown

_CLASSES_SHOWN = 3
_NUMBERS_HINT = (
    "If the numbers begin anew in each split, make them distinct, for example "
    'labels = [f"train{label}" for label in labels].'
)


def join(tables: list[EmbeddingTable]) -> EmbeddingTable:
    """One table of all rows of `tables`, as the release's `train_on_val` joins two.

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
    """Takes `count` classes out of train for val; returns (train, val).

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
    names = ", ".join(map(shown, val.class_names))
    console.say(f"{count} of {table.num_classes} classes of train are val: {names}")
    return table.with_classes(~taken), val


def check_splits(tables: list[EmbeddingTable]) -> None:
    """Refuses splits that share a class or differ in embedding size.

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
                few = ", ".join(shown(name) for name in shared[:_CLASSES_SHOWN])
                expected = f"no class of {earlier.source}"
                received = f"{len(shared)} shared, first {few}"
                are_numbers = all(map(str.isdecimal, shared))
                hint = _numbers_hint(table.source) if are_numbers else ""
                raise InputError(f"{table.source}: classes", expected, received, hint)


def _numbers_hint(source: str) -> str:
    """How to make the class numbers of a split distinct: its file's, or an array's."""
    if not source.endswith(".npz"):
        return _NUMBERS_HINT
    split = os.path.basename(source).removesuffix(".npz")
    change = (
        f".astype(int).astype(str); d['labels'] = np.char.add({split!a}, d['labels'])"
    )
    note = "If the numbers begin anew in each split, make them distinct."
    return f"{note} {rewrite_advice(source, 'labels', change)}"
