"""Bytes and text of a pickle, kept as stored and decoded once at the end.

A file that refers to one value a million times costs nothing: nothing is copied.
"""

import enum
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from leo_tf.errors import quoted

_SHOWN_CHARACTERS = 100
# Long text is decoded this many bytes at a time: they stay in the processor's cache.
_PIECE_BYTES = 1 << 16


class Unexpected(Exception):
    """Expected and received content of a file, without the location."""


class Bulk:
    """A long run of the file's bytes, read once into its own buffer."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: np.ndarray):
        self.buffer = buffer

    def __len__(self) -> int:
        return len(self.buffer)


class LongText(Bulk):
    """A long Latin-1 text, Python 3's form of an array's data."""

    __slots__ = ()


class Encoded:
    """A call `_codecs.encode(text, "latin1")`: Python 3's bytes in protocols 0-2."""

    __slots__ = ("text",)

    def __init__(self, arguments: object):
        text, encoding = fields(arguments, 2, "_codecs.encode")
        if not isinstance(text, (str, LongText)):
            raise Unexpected("text to encode", kind_of(text))
        if short_text(encoding) not in ("latin1", "latin-1"):
            raise Unexpected("the encoding latin1", quoted(short_text(encoding)))
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def encode(self) -> bytes | np.ndarray:
        if isinstance(self.text, LongText):
            return self.text.buffer
        try:
            return self.text.encode("latin-1")
        except UnicodeEncodeError:
            raise Unexpected("bytes as Latin-1", "other characters") from None


def read_latin1(file: io.BufferedIOBase, count: int) -> np.ndarray:
    """Returns [characters] uint8 of `count` bytes of UTF-8, read in pieces.

    The buffer owns no more memory than it fills: the pages behind are never touched.
    """
    out = np.empty(count, np.uint8)
    piece = np.empty(min(_PIECE_BYTES, count) + 1, np.uint8)
    filled = carried = 0
    while count:
        got = file.readinto(piece[carried : carried + min(_PIECE_BYTES, count)].data)
        if not got:
            raise Unexpected(f"{count} more bytes", "the end of the file")
        count -= got
        text = piece[: carried + got]
        # The first half of a character waits for its second.
        carried = int(count > 0 and text[-1] >= 0xC0)
        characters = _utf8_to_latin1(text[: len(text) - carried])
        out[filled : filled + len(characters)] = characters
        filled += len(characters)
        piece[:carried] = text[-1]
    return out[:filled]


def _utf8_to_latin1(text: np.ndarray) -> np.ndarray:
    """Converts [length] uint8 of UTF-8 to [characters], faster than codecs.

    A Latin-1 character above 0x7F is 0xC2 or 0xC3, then one byte of 0x80 to 0xBF: the
    character itself, less 0x40 after 0xC3.
    """
    leads = text >= 0xC0
    follows = text.view(np.int8) < -0x40  # 0x80 to 0xBF
    valid = (
        not follows[:1].any()
        and not leads[-1:].any()
        and np.array_equal(follows[1:], leads[:-1])
        # Wraps around: only 0xC2 and 0xC3 end up at 0 and 1.
        and np.array_equal(leads, text - np.uint8(0xC2) <= 1)
    )
    if not valid:
        raise Unexpected("text in UTF-8 with characters of Latin-1", "other bytes")
    characters = text.copy()
    characters[1:] += (text[:-1] == 0xC3).view(np.uint8) << 6
    return characters.compress(~leads)


def check_length(data: Any, count: int) -> None:
    """Refuses data that are not `count` bytes, before anything is allocated."""
    if not isinstance(data, (bytes, Encoded)) and type(data) is not Bulk:
        raise Unexpected("the bytes of an array", kind_of(data))
    if len(data) != count:
        raise Unexpected(f"{count} bytes for the declared shape", f"{len(data)}")


def raw_bytes(data: bytes | Bulk | Encoded) -> bytes | np.ndarray:
    """Returns the bytes of a value that passed `check_length`."""
    if isinstance(data, Encoded):
        return data.encode()
    return data.buffer if isinstance(data, Bulk) else data


def short_text(value: object) -> str:
    """Returns a word from bytes of Python 2, or (encoded) text of Python 3."""
    if isinstance(value, Encoded) and isinstance(value.text, str):
        value = value.text
    if isinstance(value, bytes):
        value = value[:_SHOWN_CHARACTERS].decode("latin-1")
    if not isinstance(value, str):
        raise Unexpected("a word", kind_of(value))
    return value[:_SHOWN_CHARACTERS]


def kind_of(value: object) -> str:
    """Describes the type of a value, never its content, which may be huge."""
    if isinstance(value, enum.Enum):
        return f"the global {value.name}"
    return f"a value of type {type(value).__name__}"


def fields(value: object, count: int, what: str) -> tuple[Any, ...]:
    """Returns a tuple with exactly this many arguments."""
    if not isinstance(value, tuple) or len(value) != count:
        raise Unexpected(f"{count} arguments of {what}", kind_of(value))
    return value


def integers(values: Iterable[object], what: str) -> None:
    """Raises unless all values are integers."""
    for value in values:
        if type(value) not in (int, bool):
            raise Unexpected(f"{what}: integers", kind_of(value))
