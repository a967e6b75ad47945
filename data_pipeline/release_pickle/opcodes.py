"""The opcodes that Python 2 and 3 write for a dict of arrays and names.

Each is a function of the machine in `release_pickle`. What is not in `OPCODES` is
refused: everything that imports, calls, or asks for an object from outside.
Source: Python's `pickletools` documents their meaning.
"""

import warnings
from codecs import escape_decode
from operator import methodcaller

from leo_tf.data_pipeline.release_pickle.entries import Entries
from leo_tf.data_pipeline.release_pickle.values import (
    Bulk,
    LongText,
    Unexpected,
    read_latin1,
)
from leo_tf.errors import quoted

_NEWEST_PROTOCOL = 5
# Longer runs of bytes get a buffer of their own; names are shorter.
_BULK_BYTES = 1 << 16
_LARGEST_LONG = 8  # bytes


def _protocol(machine):
    version = machine.number(1)
    if version > _NEWEST_PROTOCOL:
        raise Unexpected(f"protocol 0 to {_NEWEST_PROTOCOL}", f"{version}")


def _frame(machine):
    count = machine.number(8)
    left = machine.size - machine.position
    if count > left:
        raise Unexpected(f"a frame of {count} more bytes", f"only {left} left")


def _constant(value):
    return lambda machine: machine.stack.append(value)


def _integer(width, signed=False):
    def push(machine):
        data = machine.take(width)
        machine.stack.append(int.from_bytes(data, "little", signed=signed))

    return push


def _long(machine):
    width = machine.number(1)
    if width > _LARGEST_LONG:
        raise Unexpected(f"an integer of {_LARGEST_LONG} bytes", f"{width} bytes")
    data = machine.take(width)
    machine.stack.append(int.from_bytes(data, "little", signed=True))


def _bytes(width):
    def push(machine):
        count = machine.number(width)
        if count > _BULK_BYTES:
            machine.stack.append(Bulk(machine.take_bulk(count)))
        else:
            machine.push_text(machine.take(count))

    return push


def _text(width):
    def push(machine):
        count = machine.number(width)
        if count > _BULK_BYTES:
            machine.claim(count)
            machine.stack.append(LongText(read_latin1(machine.file, count)))
            return
        try:
            machine.push_text(str(machine.take(count), "utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise Unexpected("text in UTF-8", "other bytes") from None

    return push


def _text_line(machine):
    try:
        machine.push_text(str(machine.take_line(), "raw-unicode-escape"))
    except UnicodeDecodeError:
        raise Unexpected("text with \\u escapes", "another escape") from None


def _bytes_line(machine):
    line = machine.take_line()
    if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
        raise Unexpected("a byte string in quotes", quoted(line[:20]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # An unknown escape stands for itself.
            data, _ = escape_decode(memoryview(line)[1:-1])
    except ValueError:
        raise Unexpected("a byte string with \\x escapes", "another escape") from None
    machine.push_text(data)


def _global_lines(machine):
    module, name = machine.take_line(), machine.take_line()
    machine.push_global(module.decode("latin-1"), name.decode("latin-1"))


def _stack_global(machine):
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push_global(module, name)


def _tuple(count):
    def push(machine):
        if len(machine.stack) < count:
            raise IndexError
        values = machine.stack[-count:]
        del machine.stack[-count:]
        machine.push_tuple(values)

    return push


def _dict(machine):
    entries = Entries()
    entries.update_flat(machine.pop_to_mark())
    machine.push_container(entries)


def _append(machine):
    value = machine.stack.pop()
    machine.listed += 1
    machine.extend([value])


def _setitem(machine):
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.update([key, value])


def _get(index):
    def push(machine):
        number = index(machine)
        if number < 0:
            raise Unexpected("a memo number", f"{number}")
        machine.stack.append(machine.memo[number])

    return push


def _put(index):
    return lambda machine: machine.memoize(index(machine))


def _memoize(machine):
    machine.memo.append(machine.stack[-1])


_one_byte, _four_bytes = methodcaller("number", 1), methodcaller("number", 4)
_decimal = methodcaller("decimal")

OPCODES = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"K": _integer(1),
    b"M": _integer(2),
    b"J": _integer(4, signed=True),
    b"\x8a": _long,
    b"I": lambda machine: machine.stack.append(machine.decimal()),
    b"L": lambda machine: machine.stack.append(machine.decimal(suffix=b"L")),
    b"C": _bytes(1),  # SHORT_BINBYTES
    b"B": _bytes(4),
    b"\x8e": _bytes(8),
    b"\x96": _bytes(8),  # BYTEARRAY8
    b"U": _bytes(1),  # SHORT_BINSTRING, of Python 2
    b"T": _bytes(4),
    b"S": _bytes_line,
    b"\x8c": _text(1),  # SHORT_BINUNICODE
    b"X": _text(4),
    b"\x8d": _text(8),
    b"V": _text_line,
    b"c": _global_lines,
    b"\x93": _stack_global,
    b"R": methodcaller("reduce"),
    b"b": methodcaller("build"),
    b"(": methodcaller("mark"),
    b")": _constant(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda machine: machine.push_tuple(machine.pop_to_mark()),
    b"]": lambda machine: machine.push_container([]),
    b"l": lambda machine: machine.push_container(machine.pop_to_mark()),
    b"a": _append,
    b"e": lambda machine: machine.extend(machine.pop_to_mark()),
    b"}": lambda machine: machine.push_container(Entries()),
    b"d": _dict,
    b"s": _setitem,
    b"u": lambda machine: machine.update(machine.pop_to_mark()),
    b"h": _get(_one_byte),
    b"j": _get(_four_bytes),
    b"g": _get(_decimal),
    b"q": _put(_one_byte),
    b"r": _put(_four_bytes),
    b"p": _put(_decimal),
    b"\x94": _memoize,
}
