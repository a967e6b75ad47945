"""Reads the release's pickles without the ability to run their content.

`pickle.load` would run whatever a file says, and an allow-list of NumPy's functions
does not help: forged array state crashes NumPy. This reader knows only the opcodes that
Python 2 and 3 write for such a dict, calls nothing that a file names, and gives memory
in proportion to the file: every length is checked against the bytes left, and names are
references. Everything else is refused with the offset.
"""

import io
import os
import pickletools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from leo_tf.data_pipeline.formats.conversions import pickle_advice
from leo_tf.data_pipeline.release_pickle import arrays
from leo_tf.data_pipeline.release_pickle.arrays import Known
from leo_tf.data_pipeline.release_pickle.entries import (
    Entries,
    ordered_dict,
    read_entries,
)
from leo_tf.data_pipeline.release_pickle.opcodes import OPCODES
from leo_tf.data_pipeline.release_pickle.values import Encoded, Unexpected, kind_of
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath

_HINT = "Only the release's own kind of pickle is read; see docs/data_formats.md."
_LONGEST_NUMBER = 24  # characters: 64 bits, and then some
_SHOWN_CHARACTERS = 100
_MOST_CONTAINERS = 16  # an OrderedDict of Python 2 has four
# Bytes of memory: a place in a list, one on the stack, which may be copied twice, a
# mark, a short text without its characters, a tuple or what a call makes. A file may
# ask for twice its size of them, beside the data; 700,000 names are free.
_SLOT, _STACKED, _MARK, _TEXT, _MADE = 10, 30, 48, 64, 100
_FREE_MEMORY = 1 << 26
_CHECK_EVERY = 4096  # opcodes


def loads(buffer: bytes, path: AnyPath = "pickle") -> dict[str, Any]:
    """Reads like `read_file`, from memory. Errors begin with `path`."""
    return read_file(io.BytesIO(buffer), path)


def read_file(file: io.BufferedIOBase, path: AnyPath) -> dict[str, Any]:
    """Reads an embeddings file of the release, or one in the same form.

    It is a pickle, protocol 0 to 5, of Python 2 or 3: a dict or OrderedDict of
    `embeddings`, a 2-D array of floats, and `keys`, the names as a list, a tuple or an
    array of text or byte strings.

    Returns:
      embeddings: [rows, D] in the dtype, byte order and layout of the file.
      keys: [rows] list of str; byte strings decoded, see `names.decode_names`.

    Raises:
      InputError: naming path, byte offset and what was found, if it holds anything
        else, is damaged, or cannot be read.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    machine = _Machine(file, size)
    try:
        return machine.run()
    except Unexpected as error:
        where = f"{os.fspath(path)}: byte {machine.start}"
        expected, received = error.args
        hint = pickle_advice(file, os.fspath(path)) or _HINT
        raise InputError(where, expected, received, hint) from None


class _Machine:
    """The stack machine of pickles without its dangerous operations."""

    def __init__(self, file: io.BufferedIOBase, size: int):
        self.file, self.size = file, size
        self.position = 0  # bytes read
        self.start = 0  # of the current opcode
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: list[Any] = []
        self.made = 0  # tuples and calls
        self.texts = 0  # texts and byte strings
        self.listed = 0  # values put into lists
        self.containers = 0  # lists and dicts

    def run(self) -> dict[str, Any]:
        next_bytes, opcodes = self.file.read, OPCODES
        try:
            while True:
                for _ in range(_CHECK_EVERY):
                    self.start = self.position
                    opcode = next_bytes(1)
                    self.position += 1
                    handle = opcodes.get(opcode)
                    if handle is None:
                        if opcode == b".":
                            return self.finish()
                        raise self.refused(opcode)
                    handle(self)
                self.check_memory()
        except IndexError:
            raise Unexpected("a value on the stack or in the memo", "none") from None

    def refused(self, opcode: bytes) -> Unexpected:
        if not opcode:
            return Unexpected("an opcode", "the end of the file")
        code = opcode.decode("latin-1")
        name = "".join(f" ({op.name})" for op in pickletools.opcodes if op.code == code)
        return Unexpected("a known opcode", f"{opcode!r}{name}")

    def finish(self) -> dict[str, Any]:
        self.check_memory()
        if len(self.stack) != 1:
            raise Unexpected("one value at the end", f"{len(self.stack)}")
        if self.position != self.size:
            extra = f"{self.size - self.position} more bytes"
            raise Unexpected("the end of the file after the pickle", extra)
        return read_entries(self.stack.pop(), self.size)

    def check_memory(self) -> None:
        memory = _SLOT * (len(self.memo) + self.listed)
        memory += _STACKED * len(self.stack) + _MARK * len(self.marks)
        memory += _TEXT * self.texts + _MADE * self.made
        if memory > _FREE_MEMORY + 2 * self.size:
            raise Unexpected("a name or an array every few bytes", "countless values")

    def take(self, count: int) -> bytes:
        """Returns the next few bytes."""
        data = self.file.read(count)
        self.position += count
        if len(data) < count:
            raise Unexpected(f"{count} more bytes", "the end of the file")
        return data

    def take_bulk(self, count: int) -> np.ndarray:
        """Returns [count] uint8 from the file in an aligned buffer of its own."""
        self.claim(count)
        buffer = np.empty(count, np.uint8)
        if self.file.readinto(buffer.data) < count:
            raise Unexpected(f"{count} more bytes", "the end of the file")
        return buffer

    def claim(self, count: int) -> None:
        """Counts bytes as read. Refuses more than remain."""
        left = self.size - self.position
        if count > left:
            raise Unexpected(f"{count} more bytes", f"only {left} left")
        self.position += count

    def take_line(self, longest: int = -1) -> bytes:
        line = self.file.readline(longest)
        self.position += len(line)
        if not line.endswith(b"\n"):
            raise Unexpected("the end of a line", "none")
        return line[:-1]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def decimal(self, suffix: bytes = b"") -> int:
        line = self.take_line(_LONGEST_NUMBER).removesuffix(suffix)
        if not line.removeprefix(b"-").isdigit():
            raise Unexpected("a number", quoted(line))
        return int(line)

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list:
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        self.listed += len(values)
        return values

    def push_text(self, value: object) -> None:
        self.texts += 1
        self.stack.append(value)

    def push_tuple(self, values: Iterable[Any]) -> None:
        self.made += 1
        self.stack.append(tuple(values))

    def push_container(self, value: list | Entries) -> None:
        self.containers += 1
        if self.containers > _MOST_CONTAINERS:
            raise Unexpected("one list of names", f"{self.containers} lists or dicts")
        self.stack.append(value)

    def memoize(self, index: int) -> None:
        # Every pickler numbers them in turn, Python 2's cPickle from 1.
        if not self.memo and index == 1:
            self.memo.append(None)
        if index != len(self.memo):
            raise Unexpected(f"memo number {len(self.memo)}", f"{index}")
        self.memo.append(self.stack[-1])

    def extend(self, values: list) -> None:
        if type(self.stack[-1]) is not list:
            raise Unexpected("a list to extend", kind_of(self.stack[-1]))
        self.stack[-1].extend(values)

    def update(self, values: list) -> None:
        if not isinstance(self.stack[-1], Entries):
            raise Unexpected("a dict to fill", kind_of(self.stack[-1]))
        self.stack[-1].update_flat(values)

    def push_global(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Unexpected("the name of a global", kind_of(module))
        known = arrays.GLOBALS.get((module, name))
        if known is None:
            found = quoted(f"{module[:_SHOWN_CHARACTERS]}.{name[:_SHOWN_CHARACTERS]}")
            raise Unexpected("a global of NumPy's arrays", f"the global {found}")
        self.stack.append(known)

    def reduce(self) -> None:
        arguments, known = self.stack.pop(), self.stack.pop()
        make = _CALLS.get(known) if isinstance(known, Known) else None
        if make is None:
            raise Unexpected("a known global to call", kind_of(known))
        self.made += 1
        self.stack.append(make(arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (arrays.Dtype, arrays.Array)):
            raise Unexpected("an array or dtype to set up", kind_of(target))
        target.build(state)


_CALLS: dict[Known, Callable[[Any], object]] = {
    Known.RECONSTRUCT: arrays.reconstruct,
    Known.FROMBUFFER: arrays.frombuffer,
    Known.SCALAR: arrays.Scalar,
    Known.DTYPE: arrays.Dtype,
    Known.ENCODE: Encoded,
    Known.ORDERED_DICT: ordered_dict,
}
