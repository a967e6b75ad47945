"""Reads text tables: numbers and a class on each line, between `,` `;` or tabs."""

import array
import csv
import itertools
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from leo_tf.data_pipeline.formats.conversions import FIELDS
from leo_tf.data_pipeline.formats.names import check_row_count
from leo_tf.errors import InputError, quoted

# A line of characters with a delimiter among them.
_FIRST_LINE = re.compile(rb"[^\0-\x08\n]*[,;\t][^\0-\x08\n]*\n")
# A cell takes sixty bytes while its line is taken apart.
_LONGEST_LINE = 1 << 19
# A name takes a hundred bytes, however short it is.
_MOST_CLASSES = 1 << 18
LABELS = ("label", "class", "y", "target", *FIELDS[1][:-1])


class TextTable(NamedTuple):
    """Content of a table."""

    features: np.ndarray  # [rows, D] of the dtype asked for
    classes: list[str]  # [rows]


class _Columns(NamedTuple):
    """Positions of the class and of the features."""

    label: int
    features: list[int]
    names: list[str]
    has_header: bool


def is_text_table(start: bytes) -> bool:
    """Tells by first bytes whether a file is a text table."""
    return _FIRST_LINE.match(start) is not None


def read_table(file: BinaryIO, path: str, dtype: str) -> TextTable:
    """Reads the table in an open file.

    If the first line names columns, the class is in the one called label, class, y or
    target, and a column without a name, such as row numbers, is left out. Otherwise the
    class is in the last column. All others are features.

    Raises:
      InputError: if a cell is invalid; it names the line and the column.
    """
    file.seek(0)
    first = file.readline(_LONGEST_LINE)
    file.seek(0)
    delimiter = chr(max(b",;\t", key=first.count))
    rows = csv.reader(_lines(file, path), delimiter=delimiter, strict=True)
    numbers = array.array("d" if dtype == "float64" else "f")
    classes: list[str] = []
    known: dict[str, str] = {}  # shares one string object per class
    try:
        header = next(rows)
        columns = _columns_of(header, path)
        begun = [] if columns.has_header else [header]
        for row in itertools.chain(begun, filter(None, rows)):
            where = f"{path}: line {rows.line_num}"
            if len(row) != len(header):
                raise InputError(where, f"{len(header)} columns", f"{len(row)}")
            label = row[columns.label].strip()
            if not label:
                raise InputError(where, "a class", "none")
            classes.append(known.setdefault(label, label))
            if len(known) > _MOST_CLASSES:
                expected = f"at most {_MOST_CLASSES} classes"
                hint = "Is the class in another column? Name it label."
                raise InputError(path, expected, "more", hint)
            try:
                numbers.extend([float(row[i]) for i in columns.features])
            except ValueError:
                _refuse_cell(row, columns, where)
            size = numbers.itemsize * len(columns.features)
            if not len(classes) & 0xFFFF:
                check_row_count(
                    len(classes), size, lambda *parts: InputError(path, *parts)
                )
    except (csv.Error, UnicodeDecodeError) as error:
        where, is_text = f"{path}: line {rows.line_num}", isinstance(error, csv.Error)
        expected = "a well-formed CSV table" if is_text else "a table in UTF-8"
        raise InputError(where, expected, quoted(str(error))) from None
    if not classes:
        raise InputError(path, "rows of numbers and a class", "no row")
    for label in known:
        if _is_number(label) and not float(label).is_integer():
            received = f"{quoted(label)} in column {columns.names[columns.label]}"
            hint = "Is the class in another column? Name it label."
            raise InputError(
                path, "classes that are names or whole numbers", received, hint
            )
    features = np.frombuffer(numbers, numbers.typecode)
    return TextTable(features.reshape(len(classes), -1), classes)


def read_labels(file: BinaryIO, path: str, rows: int) -> list[str]:
    """Reads one label per line. A first line that only names them is skipped.

    Raises:
      InputError: if they are not as many as `rows`.
    """
    file.seek(0)
    labels: list[str] = []
    known: dict[str, str] = {}  # shares one string object per class
    try:
        for line in _lines(file, path):
            label = line.strip().strip('"')
            if label and (labels or label not in LABELS):
                labels.append(known.setdefault(label, label))
            if len(labels) > rows:
                break
    except UnicodeDecodeError as error:
        raise InputError(path, "text in UTF-8", quoted(str(error))) from None
    if len(labels) != rows:
        found = f"{len(labels)}{' or more' * (len(labels) > rows)}"
        raise InputError(path, f"{rows} labels, one per row of the features", found)
    return labels


def _lines(file: BinaryIO, path: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            expected = f"less than {_LONGEST_LINE} bytes"
            raise InputError(f"{path}: line {number}", expected, "more")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _columns_of(first: list[str], path: str) -> _Columns:
    """Returns the columns, by the first line: a header or numbers."""
    names = [name.strip() for name in first]
    last = len(names) - 1
    if all(_is_number(name) for name in names[:-1]):
        numbered = [str(i + 1) for i in range(last + 1)]
        return _Columns(last, list(range(last)), numbered, False)
    labels = [i for i, name in enumerate(names) if name in LABELS]
    if len(labels) != 1:
        few = ", ".join(map(quoted, names[:8])) + ", ..." * (len(names) > 8)
        expected = f"one column of the class, named one of {', '.join(LABELS[:4])}"
        raise InputError(f"{path}: line 1", expected, few)
    features = [i for i, name in enumerate(names) if name and i != labels[0]]
    if not features:
        raise InputError(f"{path}: line 1", "columns of numbers", "none")
    return _Columns(labels[0], features, names, True)


def _refuse_cell(row: list[str], columns: _Columns, where: str) -> None:
    wrong = next(i for i in columns.features if not _is_number(row[i]))
    hint = "Features are numbers; leave other columns out."
    column = f"{where}, column {quoted(columns.names[wrong])}"
    raise InputError(column, "a number", quoted(row[wrong]), hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
