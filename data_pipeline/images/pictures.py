"""Finds pictures and their classes in folders, CSV files or the embedded set."""

import csv
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from leo_tf.configs.schema import EMBEDDED_DATASET
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.formats.conversions import SPLIT_WORDS
from leo_tf.data_pipeline.formats.names import index_classes
from leo_tf.data_pipeline.formats.opening import open_input
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.data_pipeline.splits import join
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath

# By these names a file is a picture. Those that we do not read are refused when they
# are decoded, rather than skipped.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"),
)
# Other names of the splits' folders.
_SPLIT_OF = {name: name for name in SPLITS} | SPLIT_WORDS
_COLUMNS = {
    "path": ("path", "filename", "file", "image"),
    "text": ("text", "item", "sentence"),
    "label": ("label", "class"),
    "split": ("split",),
}
_JUNK = "__MACOSX"  # left beside the folders by archives of macOS
_SHOWN = 3
_NAME_CHARACTERS = 40  # of a text
_MOST_LINE_BYTES = 1 << 20  # more than the csv module takes in a field


class Pictures(NamedTuple):
    """A list of n pictures of C classes, sorted by class, then by path.

    Only the names of files are known here. `decoding.decode` reads them.
    """

    root: str  # absolute folder without links; "" for pictures in memory and texts
    items: tuple[str, ...]  # the path of each below it, or its name, or the text
    labels: np.ndarray  # [n] int32, the class of each
    class_names: tuple[str, ...]  # [C]
    splits: tuple[str, ...] | None = None  # [C] train, val or test; None: not split
    images: np.ndarray | None = None  # [n, H, W] uint8, of pictures in memory
    source: str = ""  # as given by the user; errors begin with it

    @property
    def names(self) -> list[str]:
        """Names of the pictures, as text that any file can store."""
        if self.are_texts:
            begun = (item[:_NAME_CHARACTERS] for item in self.items)
            return [f"{number}: {_text(text)}" for number, text in enumerate(begun)]
        return [_text(item) for item in self.items]

    @property
    def are_texts(self) -> bool:
        """True if items are texts of a CSV file instead of files."""
        return not self.root and self.images is None

    def of_split(self, split: str) -> np.ndarray:
        """Returns the numbers of a split's pictures, in order."""
        if self.splits is None:
            return np.arange(0)
        return np.flatnonzero((np.array(self.splits) == split)[self.labels])

    def part(self, indices: np.ndarray) -> "Pictures":
        """Returns the pictures with these numbers. Classes stay."""
        return self._replace(
            items=tuple(self.items[index] for index in indices),
            labels=self.labels[indices],
            images=None if self.images is None else self.images[indices],
        )

    def digest(self) -> str:
        """Returns the SHA-256 of names, classes, splits and every file's content.

        A file that cannot be read counts as one without content. It takes as long as
        reading them all.
        """
        described = [self.items, self.class_names, self.splits]
        sha = hashlib.sha256(json.dumps(described).encode("ascii"))
        sha.update(self.labels.tobytes())
        if self.images is not None:
            sha.update(np.ascontiguousarray(self.images).data)
            return sha.hexdigest()
        for item in self.items:
            path = None if self.are_texts else os.path.join(self.root, item)
            sha.update(_content_digest(path))
        return sha.hexdigest()


def _content_digest(path: str | None) -> bytes:
    """Returns the SHA-256 of a file's content; of nothing if it cannot be read."""
    content = hashlib.sha256()
    try:
        if path is not None:
            with open_input(path) as file:
                while block := file.read(1 << 20):
                    content.update(block)
    except InputError:
        content = hashlib.sha256()
    return content.digest()


def find_pictures(path: AnyPath, console: Console = SILENT) -> Pictures:
    """Finds the pictures of a folder, of a CSV file, or the embedded ones.

    Args:
      path: a folder with a folder per class, `DIR/cat/1.jpg`, or with train, val
        and test of those; a CSV file whose first line names columns path and label,
        and perhaps split, with paths below its own folder, or with a column text
        instead of path, for items that are not files; or "glyphs", the embedded set.
      console: reports skipped files.

    Raises:
      InputError: if there are no pictures, or a class is in two splits.
    """
    if path == EMBEDDED_DATASET:
        return _glyphs(console)
    path = os.fspath(path)
    if os.path.isdir(path):
        return _of_rows(os.path.realpath(path), _in_folders(path, console), path)
    if not os.path.exists(path):
        expected = "a folder with one folder per class, a CSV file, or glyphs"
        raise InputError(path, expected, "nothing there")
    with open_input(path) as file:
        # In parts, because a file of another kind may have no end of line.
        read = functools.partial(file.readline, _MOST_LINE_BYTES)
        lines = (line.decode("utf-8", "surrogateescape") for line in iter(read, b""))
        rows, are_texts = _in_table(lines, path)
    root = "" if are_texts else os.path.dirname(os.path.realpath(path))
    return _of_rows(root, rows, path, are_texts)


def _of_rows(
    root: str,
    rows: Iterable[tuple[str, str, str]],
    source: str,
    are_texts: bool = False,
) -> Pictures:
    """Returns pictures of rows of path, class and split. All splits or none are ""."""
    rows = sorted(rows)
    if not rows:
        expected = "a folder of pictures for each class, DIR/cat/1.jpg"
        hint = "Or a CSV file of path,label."
        raise InputError(source, expected, "no pictures", hint)
    for row, following in itertools.pairwise(rows):
        if row[0] == following[0] and not are_texts:
            raise InputError(source, "every picture once", f"again: {quoted(row[0])}")
    labels, class_names = index_classes([label for _, label, _ in rows])
    splits = [""] * len(class_names)
    for label, (path, name, split) in zip(labels.tolist(), rows):
        if splits[label] not in ("", split):
            both = " and ".join(sorted((splits[label], split)))
            hint = "Few-shot classes are split, not their pictures: give one folder of "
            hint += "all classes, and --class_split divides them."
            received = f"{quoted(name)} in {both}, as {quoted(path)}"
            raise InputError(source, "each class in one split", received, hint)
        splits[label] = split
    order = np.argsort(labels, kind="stable")
    return Pictures(
        root,
        tuple(rows[i][0] for i in order),
        labels[order],
        class_names,
        tuple(splits) if all(splits) else None,
        source=source,
    )


def _in_folders(path: str, console: Console) -> Iterator[tuple[str, str, str]]:
    """Yields path below the folder, class and split of each picture."""
    folders = [entry.name for entry in _entries(path) if entry.is_dir()]
    known = [name for name in folders if name.lower() in _SPLIT_OF]
    nested = [n for n in known if any(e.is_dir() for e in _entries(path, n))]
    is_split = bool(known) and len(known) == len(folders)
    if nested and not is_split:
        other = next(name for name in folders if name not in known)
        expected = "either folders train, val and test of classes, or of classes only"
        received = f"{quoted(nested[0])}, which has folders, beside {quoted(other)}"
        raise InputError(path, expected, received)
    other_files: list[str] = []
    if not is_split:
        yield from _in_classes(path, "", "", other_files)
    for name in known if is_split else ():
        yield from _in_classes(path, name, _SPLIT_OF[name.lower()], other_files)
    if other_files:
        few = ", ".join(map(quoted, other_files[:_SHOWN]))
        few += ", ..." * (len(other_files) > _SHOWN)
        passed = "files skipped, not pictures or in no class"
        console.say(f"{path}: {len(other_files)} {passed}: {few}")


def _in_classes(
    path: str, below: str, split: str, other_files: list[str]
) -> Iterator[tuple[str, str, str]]:
    """Yields what `_in_folders` does, for class folders in `path`/`below`."""
    for entry in _entries(path, below):
        if not entry.is_dir():
            other_files.append(os.path.join(below, entry.name))
            continue
        waiting = [os.path.join(below, entry.name)]
        while waiting:
            folder = waiting.pop()
            for each in _entries(path, folder):
                item = os.path.join(folder, each.name)
                if each.is_dir(follow_symlinks=False):
                    waiting.append(item)
                # A link to a directory might lead back here: refused as a file.
                elif each.is_dir() or item.lower().endswith(_SUFFIXES):
                    yield item, _text(entry.name), split
                else:
                    other_files.append(item)


def _entries(*path: str) -> list[os.DirEntry[str]]:
    """Returns the visible entries of a folder, sorted by name."""
    folder = os.path.join(*path)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        expected = "a directory that can be read"
        raise InputError(folder, expected, str(error.strerror)) from None
    return [e for e in entries if not e.name.startswith(".") and e.name != _JUNK]


def _in_table(
    lines: Iterable[str], path: str
) -> tuple[list[tuple[str, str, str]], bool]:
    """Returns path or text, class and split of each CSV row; and whether texts."""
    rows, found = csv.reader(lines, strict=True), []
    try:
        header = [name.strip().lower().lstrip("\ufeff") for name in next(rows, [])]
        place = {
            column: next((header.index(n) for n in names if n in header), None)
            for column, names in _COLUMNS.items()
        }
        at_path, at_text, at_label, at_split = place.values()
        are_texts = at_path is None
        at_item = at_text if at_path is None else at_path
        if at_item is None or at_label is None:
            expected = (
                "a first line that names columns path and label, or text and label"
            )
            raise InputError(path, expected, ", ".join(map(quoted, header[:8])))
        for row in filter(None, rows):
            where = f"{path}: line {rows.line_num}"
            if len(row) != len(header):
                raise InputError(where, f"{len(header)} columns", f"{len(row)}")
            item, label = row[at_item].strip(), row[at_label].strip()
            if not are_texts:
                item = os.path.normpath(row[at_item])
            if not are_texts and (os.path.isabs(item) or item.startswith(os.pardir)):
                hint = "Put the file into a folder that holds them all."
                raise InputError(where, "a path below this file", quoted(item), hint)
            if not label:
                raise InputError(where, "a class", "none")
            split = "" if at_split is None else row[at_split].strip()
            if at_split is not None and split.lower() not in _SPLIT_OF:
                raise InputError(where, f"one of {', '.join(SPLITS)}", quoted(split))
            if are_texts and not item:
                raise InputError(where, "a text", "none")
            found.append((item, _text(label), _SPLIT_OF.get(split.lower(), "")))
    except csv.Error as error:
        where = f"{path}: line {rows.line_num}"
        raise InputError(where, "a CSV file", str(error)) from None
    return found, are_texts


def _text(name: str) -> str:
    r"""Returns a file name as text. Bytes that are not UTF-8 become \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _glyphs(console: Console) -> Pictures:
    from leo_tf.data_pipeline.glyphs.dataset import load_splits

    tables = load_splits(console=console)
    table = join([tables[name] for name in SPLITS])
    splits = [name for name in SPLITS for _ in tables[name].class_names]
    names = () if table.names is None else tuple(table.names.tolist())
    classes, source = table.class_names, EMBEDDED_DATASET
    images = table.images
    return Pictures("", names, table.labels, classes, tuple(splits), images, source)
