"""Checks the record lengths of a TFRecord file, and reads nothing else.

A record is its length (8 bytes), a checksum of that (4), the data, a checksum of the
data (4). Every length is compared with the file's size here, before TensorFlow sees
the file: it gives memory for whatever a length claims. Needs no TensorFlow.
"""

import os
import struct
from typing import BinaryIO

from leo_tf.errors import InputError

_LENGTH = struct.Struct("<Q")
HEAD_BYTES, _TAIL_BYTES = 12, 4
# 260,000 features; the parser takes some 80 times the worst record.
_LONGEST_RECORD = 1 << 20


def is_tfrecord(start: bytes) -> bool:
    """Tells whether `start` is a length and its checksum."""
    checksum = start[_LENGTH.size : HEAD_BYTES]
    return _masked_crc(start[: _LENGTH.size]) == checksum


def scan(file: BinaryIO, path: str) -> tuple[int, int]:
    """Walks over all record lengths; returns their number and the longest.

    Raises:
      InputError: if a record extends beyond the end of the file, or is too long.
    """
    size = file.seek(0, os.SEEK_END)
    position = count = longest = 0
    while position < size:
        file.seek(position)
        head = file.read(HEAD_BYTES)
        left = size - position - HEAD_BYTES - _TAIL_BYTES
        where = f"{path}: record {count}"
        if len(head) < HEAD_BYTES or left < 0:
            raise InputError(where, "a whole record", "the end of the file")
        (length,) = _LENGTH.unpack(head[: _LENGTH.size])
        if length > left:
            raise InputError(where, f"{length} more bytes", f"only {left} left")
        if not 0 < length <= _LONGEST_RECORD:
            expected = f"a row of 1 to {_LONGEST_RECORD} bytes"
            raise InputError(where, expected, f"{length} bytes")
        position += HEAD_BYTES + length + _TAIL_BYTES
        count, longest = count + 1, max(longest, length)
    return count, longest


def _masked_crc(data: bytes) -> bytes:
    """Returns TFRecord's checksum: CRC-32C, rotated by 15 bits and shifted.

    Source: the format's description in `tensorflow/core/lib/io/record_writer.h`.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    turned = (crc >> 15 | crc << 17) + 0xA282EAD8
    return struct.pack("<I", turned & 0xFFFFFFFF)
