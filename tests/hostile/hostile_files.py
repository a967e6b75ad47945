"""Files that attack, deceive or are broken, as bytes, by name."""

import gzip
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Iterator

import hostile_pickles
import numpy as np

FEATURES = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
LABELS = np.array(["a", "b", "a"])
_LENGTH = struct.Struct("<Q")


def npz(compressed=False, **arrays) -> bytes:
    """A good .npz file, but for what `arrays` replace."""
    file = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(file, **{"embeddings": FEATURES, "labels": LABELS, **arrays})
    return file.getvalue()


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
    return byte


_CRC_OF_BYTE = [_crc_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """Returns CRC-32C as RFC 3720 describes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_OF_BYTE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes, length: int | None = None) -> bytes:
    """A record of TFRecord with right checksums, whatever length it claims."""
    head = _LENGTH.pack(len(data) if length is None else length)
    return head + masked(head) + data + masked(data)


def _field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    length, count = b"", len(data)
    while count > 127:
        length += bytes([count & 127 | 128])
        count >>= 7
    return bytes([number << 3 | 2]) + length + bytes([count]) + data


def example(**features: bytes) -> bytes:
    """A `tf.train.Example` of serialised features."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, feature))
        for name, feature in features.items()
    )
    return _field(1, entries)


def floats(*values: float) -> bytes:
    return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))


def texts(*values: bytes) -> bytes:
    return _field(1, b"".join(_field(1, value) for value in values))


def tfrecord(rows=FEATURES) -> bytes:
    """A good TFRecord file, written without TensorFlow."""
    return b"".join(
        record(example(embedding=floats(*row), **{"class": texts(label.encode())}))
        for row, label in zip(rows.tolist(), LABELS)
    )


def good_files() -> dict[str, bytes]:
    """Returns one small file of each format and variant."""
    return {
        "npz": npz(),
        "deflated npz": npz(compressed=True, names=np.array(["x", "y", "z"])),
        **{f"pickle {p}": hostile_pickles.pickled(p) for p in (0, 2, 4, 5)},
        "tfrecord": tfrecord(),
        "npy": npy(FEATURES),
        "safetensors": safetensors(),
    }


def npy(array: np.ndarray) -> bytes:
    """A good .npy file; its labels are beside it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def safetensors(**changes: object) -> bytes:
    """A good safetensors file, but for what `changes` replace of its features."""
    x = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48], **changes}
    y = {"dtype": "I64", "shape": [3], "data_offsets": [48, 72]}
    header = json.dumps({"X": x, "y": y}).encode()
    data = FEATURES.tobytes() + np.arange(3).tobytes()
    return _LENGTH.pack(len(header)) + header + data


def other_formats() -> dict[str, bytes]:
    """Returns foreign files, under any name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("word/document.xml", "<xml/>")
    npy = io.BytesIO()
    np.save(npy, FEATURES)
    objects = io.BytesIO()
    np.save(objects, np.array([print], object), allow_pickle=True)
    return {
        "an office document": archive.getvalue(),
        "npy": npy.getvalue(),
        "npy of objects": objects.getvalue(),
        "gzip": gzip.compress(npz()),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "ELF": b"\x7fELF" + bytes(500),
        "HTML": b"<!DOCTYPE html><html></html>",
        "(JSON)": b"({})",
        "JSON": b'{"embeddings": [[1.0]], "labels": [0]}',
        "TOML": b"c = 1\n[d]\n",
        "UTF-16": "embeddings".encode("utf-16"),
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "a line": b"\n",
        "half a zip": b"PK\x03\x04",
        "a zip's end": b"PK\x05\x06" + bytes(18),
        "a protocol buffer": example(a=floats(1.0)),
        "gzip of records": gzip.compress(tfrecord()),
        "a pickle of Torch": pickle.dumps({"weight": 1.5}, 2),
    }


def _zip(members: dict[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _npy_header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _overlapping(count: int) -> bytes:
    """A zip whose directory names one deflated member again and again.

    Source: David Fifield, "A better zip bomb", WOOT 2019.
    """
    member = _zip({"embeddings.npy": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    start = member.index(b"PK\x01\x02")
    end = member.index(b"PK\x05\x06")
    entry = member[start:end]
    directory = b"".join(
        entry.replace(b"embeddings.npy", b"%010d.npy" % i) for i in range(count)
    )
    tail = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0
    )
    return member[:start] + directory + tail


def zip_bombs(many: int) -> dict[str, bytes]:
    """Archives of about `many` bytes that ask for more memory or time than they may."""
    vast = _npy_header("'<f4'", f"({many * 100}, 4)")
    zeros = _npy_header("'<f4'", f"({many * 20}, 4)") + bytes(many * 320)
    ones = io.BytesIO()
    np.save(ones, np.ones([many * 20, 4], np.float32))
    labels = io.BytesIO()
    np.save(labels, np.zeros(many * 20, np.int8))
    objects = io.BytesIO()
    np.save(objects, np.array([print] * 9, object), allow_pickle=True)
    good = io.BytesIO()
    np.save(good, FEATURES)
    deflated = zipfile.ZIP_DEFLATED
    return {
        "a thousandfold": _zip({"embeddings.npy": zeros}, deflated),
        "a thousandfold, and labels": _zip(
            {"embeddings.npy": ones.getvalue(), "labels.npy": labels.getvalue()},
            deflated,
        ),
        "a thousandfold of labels": _zip(
            {"embeddings.npy": good.getvalue(), "labels.npy": labels.getvalue()},
            deflated,
        ),
        "a header that claims all": _zip({"embeddings.npy": vast + bytes(many)}),
        "objects": _zip({"embeddings.npy": objects.getvalue()}),
        "overlapping members": _overlapping(many // 60),
        "countless members": _zip({f"{i}.npy": b"" for i in range(many // 90)}),
        "a zip in a zip": _zip({"embeddings.npy": _zip({"a": zeros}, deflated)}),
        "a long header": _zip({"embeddings.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"}),
        "a nested header": _zip({"embeddings.npy": _npy_header("(" * 999, "(1,)")}),
        "directories above": _zip({"../../embeddings.npy": good.getvalue()}),
    }


def text_bombs(many: int) -> dict[str, bytes]:
    """Tables in text of about `many` bytes that take far more memory than they are."""
    return {
        "a line of commas": b"," * many,
        "lines of commas": (b"," * 400_000 + b"\n") * (many // 400_000 + 1),
        "a line of names": b"label," + b"f," * many,
        "short rows": b"1,a\n" * (many // 4) + b"x,a\n",
        "countless classes": b"".join(b"1,%x\n" % i for i in range(many // 7)),
        "a quote that never ends": b'1,"' + b"a\n" * many,
        "a label that never ends": b"1," + b"a" * many,
        "numbers beyond all": b"1e999,a\n" * (many // 8),
        "bytes that are no text": b"1,a\n" + b"1,\xff\n" * (many // 4),
    }


def tensor_bombs(many: int) -> dict[str, bytes]:
    """safetensors files of about `many` bytes with headers that lie."""
    nested = b'{"a":' * (many // 5)
    names = json.dumps({f"{i}": {} for i in range(many // 12)}).encode()
    return {
        "a shape of all": safetensors(shape=[1 << 40, 4]),
        "offsets of all": safetensors(shape=[1 << 38, 4], data_offsets=[0, 1 << 42]),
        "no row of all": safetensors(shape=[0, 1 << 59], data_offsets=[0, 0]),
        "a long number": safetensors(shape=[int("9" * 4000), 4]),
        "a header of all": _LENGTH.pack((1 << 24) - 1) + b"{" * many,
        "a nested header": _LENGTH.pack(len(nested)) + nested,
        "countless arrays": _LENGTH.pack(len(names)) + names,
    }


def record_bombs(many: int) -> dict[str, bytes]:
    """TFRecord files of about `many` bytes that lie about lengths or hold too much."""
    good, size = tfrecord(), min(many, 1 << 19)
    row = example(embedding=floats(1.0, 2.0), **{"class": texts(b"a")})
    empty = _field(1, _field(1, b"") * (size // 2))
    long_name = example(
        embedding=floats(1.0), **{"class": texts(b"a")}, name=texts(b"x" * size)
    )
    many_names = example(
        embedding=floats(1.0), **{"class": texts(*[b""] * (size // 2))}
    )
    lengths = 2**20, 2**32, 2**63, 2**64 - 1, 2**64 - 4
    return {
        **{f"a length of {n:,}": good + record(b"", n) for n in lengths},
        "a first length of 2^62": record(b"abc", 2**62),
        "no data": record(b""),
        "many records of no data": record(b"") * (many // 16),
        "features without names": record(empty) * (many // len(empty) + 1),
        "a long name again and again": record(long_name) * (many // size + 1),
        "countless classes": record(many_names) * (many // size + 1),
        "rows that shrink": good + record(row) * (many // len(row)),
        "rows without features": good + record(b"") * 9,
        "no class": record(example(embedding=floats(1.0))),
        "two classes": record(
            example(embedding=floats(1.0), **{"class": texts(b"a", b"b")})
        ),
        "a class of floats": record(
            example(embedding=floats(1.0), **{"class": floats(1.0)})
        ),
        "an embedding of text": record(
            example(embedding=texts(b"a"), **{"class": texts(b"a")})
        ),
        "integers": record(
            example(embedding=_field(3, _field(1, b"\x01")), **{"class": texts(b"a")})
        ),
        "no example": record(b"\xff" * 100),
        "groups": record(b"\x0b" * 1000),
        "nested": record(_nested(1000)),
    }


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = _field(1, data)
    return data


def truncations(content: bytes, step: int = 1) -> Iterator[bytes]:
    """Every `step`th beginning of a file."""
    return (content[:length] for length in range(1, len(content), step))


def damages(content: bytes, count: int, seed: str) -> Iterator[bytes]:
    """The file with one to eight bits flipped, or a byte replaced, here and there."""
    rng = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
            place = rng.randrange(len(content))
            change = rng.choice((1 << rng.randrange(8), rng.randrange(1, 256)))
            damaged[place] ^= change
        yield bytes(damaged)
