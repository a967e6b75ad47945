"""Reads the EXIF orientation of a picture's file with TensorFlow operations.

Cameras write it, in EXIF data: JPEG has them in a segment before the picture, PNG in a
chunk `eXIf`.

Shape letters: L bytes.
"""

import tensorflow as tf

# Where they may lie; a segment has 64 KiB at most.
_HEAD_BYTES = 1 << 20
_MOST_SEGMENTS = 1000  # many times what cameras write
_EXIF_SEGMENT, _NAME = 0xE1, b"Exif\0\0"
# Markers after which no segment of that kind comes: the picture, and its end.
_LAST = (0xDA, 0xD9)
_CHUNK, _CHUNK_NAME_BYTES = b"eXIf", 4
_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY_BYTES, _MOST_ENTRIES = 12, 500
_UPRIGHT = 1


def orientation(content: tf.Tensor) -> tf.Tensor:
    """Returns [] int32, EXIF's orientation; 1 (upright) if the file has none."""
    head = tf.strings.substr(content, 0, _HEAD_BYTES)
    data = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    data = tf.pad(data, [[0, 1]])  # [L], never empty
    jpeg = tf.equal(_word(data, 0), 0xFFD8)
    start = tf.cond(jpeg, lambda: _in_jpeg(data), lambda: _in_png(data))
    upright = tf.constant(_UPRIGHT)
    return tf.cond(start >= 0, lambda: _in_tiff(data, start), lambda: upright)


def _byte(data: tf.Tensor, at: tf.Tensor | int) -> tf.Tensor:
    """Returns the byte at a place, or at places; 0 beyond the end."""
    last = tf.size(data) - 1
    is_in = (at >= 0) & (at <= last)
    return tf.where(is_in, tf.gather(data, tf.clip_by_value(at, 0, last)), 0)


def _word(data: tf.Tensor, at: tf.Tensor | int, is_little: tf.Tensor | bool = False):
    first, second = _byte(data, at), _byte(data, at + 1)
    return tf.where(is_little, second * 256 + first, first * 256 + second)


def _is_at(data: tf.Tensor, at: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.reduce_all(_byte(data, at + tf.range(len(text))) == [*text])


def _in_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Returns the start of EXIF's data among the segments; -1 without any."""

    def is_exif(at):
        is_app1 = _word(data, at) == 0xFF00 + _EXIF_SEGMENT
        return is_app1 & _is_at(data, at + 4, _NAME)

    def is_other(at):
        marker = _byte(data, at + 1)
        is_marker = (_byte(data, at) == 0xFF) & tf.reduce_all(marker != _LAST)
        return is_marker & ~is_exif(at)

    def after(at):
        return [at + 2 + tf.maximum(_word(data, at + 2), 2)]

    [at] = tf.while_loop(is_other, after, [2], maximum_iterations=_MOST_SEGMENTS)
    return tf.where(is_exif(at), at + 4 + len(_NAME), -1)


def _in_png(data: tf.Tensor) -> tf.Tensor:
    """Returns the start of EXIF's data after the name of its chunk; -1 without any."""
    size = tf.maximum(tf.size(data) - 3, 0)
    found = tf.ones([size], tf.bool)
    for i, letter in enumerate(_CHUNK):
        found &= data[i : size + i] == letter
    places = tf.where(found)[:1, 0]
    first = tf.concat([tf.cast(places, tf.int32), [-1 - _CHUNK_NAME_BYTES]], 0)[0]
    return first + _CHUNK_NAME_BYTES


def _in_tiff(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in the first directory of TIFF data at `start`."""
    is_little = _byte(data, start) == ord("I")
    # Of four bytes, the two that a directory near the beginning needs.
    offset = _word(data, start + tf.where(is_little, 4, 6), is_little)
    directory = start + offset
    count = tf.minimum(_word(data, directory, is_little), _MOST_ENTRIES)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(count)  # where each begins
    tags, kinds, values = (_word(data, entries + at, is_little) for at in (0, 2, 8))
    is_it = (tags == _ORIENTATION) & (kinds == _SHORT)
    return tf.concat([tf.boolean_mask(values, is_it), [_UPRIGHT]], 0)[0]
