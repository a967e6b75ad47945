"""Classes to splits, where the data has none: shares, folds, or a file of names."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from leo_tf.configs.rules import shares_in
from leo_tf.configs.settings import DataConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.errors import FlagError, InputError, shown
from leo_tf.files import read_json

_SHOWN = 3
_MOST_BYTES = 1 << 24  # of a file of names


def split_classes(
    class_names: Sequence[str], settings: DataConfig, console: Console = SILENT
) -> tuple[str, ...]:
    """Returns the split of each class, by `class_split` or `class_folds` of settings.

    Digests of `split_seed` and the name put the classes in an order that is cut into
    parts. So no order of rows matters, nor `seed`: runs of several seeds test on the
    same classes. One class more moves at most one other over each of the cuts.

    Args:
      class_names: [C] of the classes; any order gives the same splits.
      settings: what to do. Of shares, test is cut off first, then val. Fold i has part
        i as test, the next as val.
      console: where to say what a file of names leaves out.

    Returns:
      [C] "train", "val" or "test", or "" of a class that a file of names leaves out.

    Raises:
      FlagError: if there are too few classes, or settings contradict each other.
      InputError: if a file of names is none, or names a class that is not there.
    """
    if settings.class_split and settings.class_folds:
        both = f"--class_folds={settings.class_folds} too"
        raise FlagError("--class_split", "one way to share classes", both)
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
    """Returns the splits of a table that holds all classes; see `split_classes`."""
    splits = np.array(split_classes(table.class_names, settings, console))
    return {split: table.with_classes(splits == split) for split in SPLITS}


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
    """Hands [C] splits to the classes in the order of their digests."""
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
        found = read_json(pathlib.Path(path), _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(path, f"a JSON file: {expected}", shown(str(error))) from None
    if not isinstance(found, dict) or set(found) != set(SPLITS):
        fields = ", ".join(map(shown, found)) if isinstance(found, dict) else "another"
        raise InputError(path, expected, fields)
    split_of: dict[str, str] = {}
    for split, names in found.items():
        where = f"{path}: `{split}`"
        if not isinstance(names, list) or not names:
            raise InputError(where, "a list of names of classes", shown(names))
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise InputError(where, "names of classes", shown(name))
            if str(name) in split_of:
                received = f"{shown(name)} again"
                raise InputError(where, "each class in one split", received)
            split_of[str(name)] = split
    if unknown := sorted(set(split_of) - set(class_names)):
        few = ", ".join(map(shown, unknown[:_SHOWN]))
        there = ", ".join(map(shown, class_names[:_SHOWN]))
        received = f"{len(unknown)} others, first {few}"
        raise InputError(path, f"classes of the data, as {there}", received)
    if left_out := [name for name in class_names if name not in split_of]:
        few = ", ".join(map(shown, left_out[:_SHOWN]))
        few += ", ..." * (len(left_out) > _SHOWN)
        console.say(f"{path}: leaves out {len(left_out)} classes: {few}")
    return tuple(split_of.get(name, "") for name in class_names)
