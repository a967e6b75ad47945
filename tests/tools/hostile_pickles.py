"""Pickles that would run code, forge arrays or eat memory, for the tests."""

import pickle
import struct

import numpy as np

FLOATS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
NAMES = ["0-a-a_1", "1-b-b_1", "2-b-b_2"]


def pickled(protocol=2, **content):
    """A good file of the release's form, but for what `content` replaces."""
    return pickle.dumps({"embeddings": FLOATS, "keys": NAMES, **content}, protocol)


def _canary(path):
    return b"open(" + repr(str(path)).encode() + b", 'w').close()"


def attacks(canary):
    code = _canary(canary)
    text = b"X" + struct.pack("<I", len(code)) + code
    line = b"V" + code + b"\n"
    return {
        "GLOBAL REDUCE": b"cbuiltins\nexec\n(" + line + b"tR.",
        "Python 2": b"c__builtin__\neval\n(" + line + b"tR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93" + text + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x08f2py.os.system\x93" + text + b"\x85R.",
        "INST": b"(" + line + b"ibuiltins\nexec\n.",
        "OBJ": b"(cbuiltins\nexec\n" + line + b"o.",
        "NEWOBJ": b"\x80\x02cbuiltins\nexec\n" + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cbuiltins\nexec\n" + text + b"\x85}\x92.",
        "EXT1": b"\x80\x02\x82\x01" + text + b"\x85R.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00" + text + b"\x85R.",
        "PERSID": b"Pname\n.",
        "BINPERSID": text + b"Q.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "known name, other module": b"cos\n_reconstruct\n.",
        "BUILD of a dict": b"}}X\x03\x00\x00\x00abcNsb.",
        "BUILD of a global": b"cnumpy\nndarray\n}b.",
        "REDUCE of text": text + b")R.",
        "REDUCE of a type": b"cnumpy\nndarray\n(K\x02K\x02ttR.",
    }


class Forged:
    """Pickles as NumPy's array would, with the state given."""

    def __init__(self, state, make=(np.ndarray, (0,), b"b")):
        self.state, self.make = state, make

    def __reduce__(self):
        core = getattr(np, "_core", None) or np.core  # of NumPy 1
        return core.multiarray._reconstruct, self.make, self.state


class ForgedDtype:
    def __init__(self, descriptor, state=None):
        self.descriptor, self.state = descriptor, state

    def __reduce__(self):
        made = (np.dtype, (self.descriptor, False, True))
        return made if self.state is None else (*made, self.state)


F4 = np.dtype("<f4")
BYTES = FLOATS.tobytes()
_PLAIN = (3, "<", None, None, None, -1, -1, 0)
_OBJECTS = ForgedDtype("O8", (3, "|", None, None, None, -1, -1, 63))
FORGERIES = {
    "too few bytes": (1, (3, 5), F4, False, BYTES),
    "too many bytes": (1, (3, 3), F4, False, BYTES),
    "a vast shape": (1, (1 << 40, 1 << 20), F4, False, BYTES),
    "a negative axis": (1, (-3, -4), F4, False, BYTES),
    "an empty axis": (1, (1 << 62, 0), F4, False, b""),
    "no axis": (1, (), F4, False, BYTES[:4]),
    "an axis of float": (1, (3, 4.0), F4, False, BYTES),
    "an axis of truth": (1, (True, 12), F4, False, BYTES),
    "a shape in a list": (1, [3, 4], F4, False, BYTES),
    "text as data": (1, (3, 4), F4, False, "x" * 48),
    "a list as data": (1, (3, 4), F4, False, [1.0] * 12),
    "bytes as objects": (1, (3, 4), _OBJECTS, False, b"\x01" * 96),
    "embeddings of objects": (1, (2, 1), _OBJECTS, False, ["a", "b"]),
    "another version": (7, (3, 4), F4, False, BYTES),
    "four fields": ((3, 4), F4, False, BYTES),
    "a dict as state": {"data": 1},
    "a dtype without state": (1, (3, 4), ForgedDtype("f4"), False, BYTES),
    "no dtype": (1, (3, 4), "f4", False, BYTES),
    "integers": (1, (3, 4), np.dtype("<i4"), False, BYTES),
    "complex": (1, (3, 2), np.dtype("<c8"), False, BYTES),
    "an item of no bytes": (1, (1 << 40, 1), ForgedDtype("S0", _PLAIN), False, b""),
    "a vast item": (1, (1, 1), ForgedDtype("S9999999999", _PLAIN), False, b""),
    "a record": (1, (12,), np.dtype([("a", "<f4")]), False, BYTES),
    "forged fields": (
        1,
        (3, 4),
        ForgedDtype("f4", (3, "<", None, ("a",), None, 4, 4, 0)),
        False,
        BYTES,
    ),
    "a forged subarray": (
        1,
        (3, 4),
        ForgedDtype("f4", (3, "<", (F4, (1 << 40,)), None, None, 4, 4, 0)),
        False,
        BYTES,
    ),
    "another item size": (
        1,
        (3, 4),
        ForgedDtype("f4", (3, "<", None, None, None, 1 << 30, -1, 0)),
        False,
        BYTES,
    ),
    "no byte order": (
        1,
        (3, 4),
        ForgedDtype("f4", (3, "?", None, None, None, -1, -1, 0)),
        False,
        BYTES,
    ),
}

_SET_UP = b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
_DTYPE = b"cnumpy\ndtype\n\x8c\x02f4K\x00K\x01\x87R" + _SET_UP
_EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
_STATE = b"(K\x01K\x01K\x01\x86" + _DTYPE + b"\x89C\x04\x00\x00\x80?tb"
_FILE = b"}(\x8c\x04keys](\x8c\x07n-a-a_1e\x8c\x0aembeddings%su."
BY_HAND = _FILE % (_EMPTY + _STATE)
BUILT_TWICE = {
    "array": _FILE % (_EMPTY + _STATE + _STATE),
    "dtype": _FILE % (_EMPTY + _STATE.replace(_DTYPE, _DTYPE + _SET_UP)),
}


_TEXT = b"X\x60\xea\x00\x00" + b"x" * 60_000
_KEYS = b"\x80\x04}X\x04\x00\x00\x00keys]("
_REST = b"esX\x0a\x00\x00\x00embeddings"
_SCALARS = b"".join(
    [
        b"cnumpy._core.multiarray\nscalar\n\x94cnumpy\ndtype\n",
        b"X\x06\x00\x00\x00S60000\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNN",
        b"J\x60\xea\x00\x00K\x01K\x00tbB\x60\xea\x00\x00"
        + b"x" * 60_000
        + b"\x86\x94R",
    ]
)


def _ones(rows: int) -> bytes:
    """An array of so many rows of one float."""
    shape = b"(J" + struct.pack("<i", rows) + b"K\x01t"
    data = b"B" + struct.pack("<I", 4 * rows) + b"\x00\x00\x80?" * rows
    return _EMPTY + b"(K\x01" + shape + _DTYPE + b"\x89" + data + b"tb"


def bombs(many: int) -> dict[str, bytes]:
    """Files of about `many` bytes or fewer that ask for time or memory."""
    return {
        "lists": b"]" * many,
        "dicts": b"}" * many,
        "marks": b"(" * many,
        "values between marks": b"N(" * many,
        "nones": b"N" * many,
        "nested tuples": b"N" + b"\x85" * many,
        "doubled tuples": b"N\x94" + b"h\x00\x86\x94" * (many // 4),
        "laughs": b"N\x94" + b"".join(b"h%c" % i * 2 + b"\x86\x94" for i in range(250)),
        "memo": b"N" + b"\x94" * many,
        "a far memo number": b"Nr\xff\xff\xff\xff.",
        "a memo number as text": b"Np99999999999\n.",
        "names of two letters": b"](" + b"\x8c\x02ab" * (many // 4) + b"e.",
        "4 GiB of bytes": b"T\xff\xff\xff\xffabc.",
        "8 EiB of bytes": b"\x8e" + b"\xff" * 7 + b"\x7fabc.",
        "8 EiB of text": b"\x8d" + b"\xff" * 7 + b"\x7fabc.",
        "a frame": b"\x80\x04\x95" + b"\xff" * 8 + b".",
        "an endless number": b"I" + b"9" * many + b"\n.",
        "an endless line": b"V" + b"x" * many,
        "one long name a million times": (
            _KEYS
            + _TEXT
            + b"\x94"
            + b"h\x00" * (many // 6)
            + _REST
            + _ones(many // 6 + 1)
            + b"s."
        ),
        "one long scalar many times": (
            _KEYS
            + _SCALARS
            + b"h\x00h\x01R" * (many // 26)
            + _REST
            + _ones(many // 26 + 1)
            + b"s."
        ),
        "arrays": b"cnumpy\ndtype\n\x94\x8c\x02f4\x89\x88\x87\x94"
        + b"h\x00h\x01R" * (many // 3),
    }


BOMBS = bombs(1 << 18)
