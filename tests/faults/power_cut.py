"""Simulates a power cut, which loses everything not flushed to the disk."""

import os
import pathlib
import shutil
from collections.abc import Sequence

from fault_injector import Call

_WRITES = frozenset(["write", "fwrite", "fflush", "fclose", "ftruncate"])


def lose_data(calls: Sequence[Call], root: pathlib.Path) -> None:
    """Cuts every file in half that was written to and not flushed since."""
    unflushed = set()
    for call in calls:
        if call.name in _WRITES and call.kind != "r":
            unflushed.add(call.inode)
        elif call.name == "fsync":
            unflushed.discard(call.inode)
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_ino in unflushed:
            os.truncate(path, path.stat().st_size // 2)


def lose_names(calls: Sequence[Call], root: pathlib.Path, before: pathlib.Path) -> None:
    """Undoes what made names in a directory that has not been flushed since.

    Args:
      calls: all calls up to the power cut.
      root: what the calls were made below.
      before: a copy of it as it was at first; a file that was replaced comes back.
    """
    unflushed = []  # pairs: the name made, and the name it had before or None
    made_here = set()
    for call in calls:
        path = pathlib.Path(call.path)
        if call.name == "fsync":
            unflushed = [pair for pair in unflushed if pair[0].parent != path]
        elif call.name == "rename":
            unflushed = [
                (_moved(made, path, call.other), _moved(source, path, call.other))
                for made, source in unflushed
                if made != path
            ]
            unflushed.append((pathlib.Path(call.other), path))
            made_here.discard(path)
        elif call.name in ("unlink", "rmdir"):
            made_here.discard(path)
        elif call.name in ("mkdir", "open", "fopen") and call.kind == "g":
            was_there = (before / path.relative_to(root)).exists()
            if not was_there and path not in made_here:
                unflushed.append((path, None))
                made_here.add(path)
    for made, source in reversed(unflushed):
        _undo(made, source, before / made.relative_to(root))


def _moved(path: pathlib.Path | None, old: pathlib.Path, new: str):
    """The name that what was at `path` has after a rename of `old`."""
    if path is None or not path.is_relative_to(old):
        return path
    return pathlib.Path(new) / path.relative_to(old)


def _undo(made, source, replaced):
    if not made.exists():
        return
    if source is not None and source.parent.is_dir():
        made.rename(source)
    elif made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink()
    if replaced.is_file():
        shutil.copy2(replaced, made)
