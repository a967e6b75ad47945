"""Decodes JPEG and PNG files with TensorFlow operations, like `worker` with Pillow.

So a model that was trained on pictures takes pictures itself, wherever it is loaded.
Pixels are the same, except for CMYK colours, which the two libraries convert
differently. WebP and GIF are not supported, nor an orientation stored only in XMP.

Shape letters: S pixels a side of the result, H x W of the file; L bytes.
"""

import tensorflow as tf

from leo_tf.data_pipeline.images import exif
from leo_tf.data_pipeline.images.resizing import GAP, middle_square, on_white, resize

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Of PNG: its signature and its first chunk, which tells size, depth and colours.
_HEADER_BYTES = 33
_SIZE_AT, _DEPTH_AT = 16, 24
_GREY_OF_16_BITS = (16, 0)
_RATIOS = (1, 2, 4, 8)  # to which libjpeg decodes
# Of a JPEG as it is: libjpeg keeps those in several scans whole, whatever the ratio.
_MOST_IN_FILE = 2**26


def is_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Tells for each file, strings of any shape, whether it begins as JPEG does."""
    return tf.equal(tf.strings.substr(content, 0, len(JPEG)), JPEG)


def is_png(content: tf.Tensor) -> tf.Tensor:
    """Tells for each file whether it begins as PNG does, and is long enough."""
    begins = tf.equal(tf.strings.substr(content, 0, len(PNG)), PNG)
    return begins & (tf.strings.length(content) >= _HEADER_BYTES)


def pixels_to_decode(content: tf.Tensor, size: int) -> tf.Tensor:
    """Returns [] int64, H * W in the header of a JPEG or PNG file.

    A JPEG is decoded at an eighth of its sides if that is enough for S, unless it has
    more than 2**26 pixels. Where the header has none, or they are negative, it is 0.
    """

    def of_jpeg():
        shape = tf.image.extract_jpeg_shape(content)
        in_file = tf.reduce_prod(tf.cast(shape[:2], tf.int64))
        ratio = tf.constant(_RATIOS)[_ratio(shape, size)]
        ratio = tf.where(in_file > _MOST_IN_FILE, 1, ratio)
        return -(-shape[:2] // ratio)

    def of_png():
        width_height = tf.strings.substr(content, _SIZE_AT, 8)
        return tf.io.decode_raw(width_height, tf.int32, little_endian=False)

    sides = tf.cast(tf.cond(is_jpeg(content), of_jpeg, of_png), tf.int64)
    return tf.reduce_prod(tf.maximum(sides, 0))


def decoded(content: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the middle square of a file, upright, on white: [S, S, 3] uint8.

    Args:
      content: [] the bytes of a JPEG or PNG file.
      size: S.

    Raises:
      InvalidArgumentError: from TensorFlow, at run time, if the file is damaged.
    """
    pixels = tf.cond(
        is_jpeg(content), lambda: _jpeg(content, size), lambda: _png(content, size)
    )
    return _turned(tf.ensure_shape(pixels, [size, size, 3]), exif.orientation(content))


def _ratio(shape: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the one of `_RATIOS` that leaves a JPEG `GAP` times its result's size."""
    times = tf.reduce_min(shape[:2] // int(GAP * size))
    return tf.reduce_sum(tf.cast(times >= _RATIOS[1:], tf.int32))


def _jpeg(content: tf.Tensor, size: int) -> tf.Tensor:
    def at(ratio):
        return lambda: tf.io.decode_jpeg(
            content, 3, ratio, dct_method="INTEGER_ACCURATE"
        )

    shape = tf.image.extract_jpeg_shape(content)
    pixels = tf.switch_case(_ratio(shape, size), [at(ratio) for ratio in _RATIOS])
    return resize(pixels, size, _square(pixels))


def _png(content: tf.Tensor, size: int) -> tf.Tensor:
    def grey():
        values = tf.cast(tf.io.decode_png(content, 1, tf.uint16), tf.float64)
        pixels = tf.tile(tf.cast(values * (1 / 257), tf.uint8), [1, 1, 3])
        return resize(pixels, size, _square(pixels))

    def coloured():
        pixels = tf.io.decode_png(content, 4)
        # What TensorFlow fills it with, of files that have none.
        full = tf.minimum(2 ** tf.cast(header[0], tf.int32) - 1, 255)
        is_opaque = tf.reduce_all(tf.cast(pixels[..., 3], tf.int32) == full)
        box = _square(pixels)
        opaque = lambda: resize(pixels[..., :3], size, box)  # noqa: E731
        return tf.cond(is_opaque, opaque, lambda: on_white(pixels, size, box))

    header = tf.io.decode_raw(tf.strings.substr(content, _DEPTH_AT, 2), tf.uint8)
    is_deep_grey = tf.reduce_all(header == _GREY_OF_16_BITS)
    return tf.cond(is_deep_grey, grey, coloured)


def _square(pixels: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(pixels)
    return middle_square(shape[0], shape[1])


def _turned(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns [S, S, 3], turned by EXIF's orientation 1 to 8."""
    last = pixels.shape[0] - 1
    place = tf.range(last + 1)
    is_lying = (orientation >= 5) & (orientation <= 8)
    pixels = tf.where(is_lying, tf.transpose(pixels, [1, 0, 2]), pixels)
    for axis, mirrored in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
        is_mirrored = tf.reduce_any(tf.equal(orientation, mirrored))
        pixels = tf.gather(
            pixels, tf.where(is_mirrored, last - place, place), axis=axis
        )
    return pixels
