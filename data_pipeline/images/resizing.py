"""Pillow's resizing as TensorFlow operations, equal to the last bit.

An exported model reads pictures without Pillow, and their features must equal those of
training. Pillow rounds to whole numbers after each of its passes. So does this module,
with the same weights in the same fixed point.

Shape letters: H x W pixels, C channels, S pixels a side of the result.

Source: Pillow, src/libImaging/Resample.c, Reduce.c, Convert.c, AlphaComposite.c and
Image.resize of src/PIL/Image.py, in versions 7 to 13 (with transparency: 12, 13).
"""

import tensorflow as tf

# Before it is resized, a picture is at least so many times as large as it will be.
GAP = 3.0
_WEIGHT_BITS = 22  # of the fixed point of weights
_OPAQUE, _FINE = 255, 128  # and in what parts of it colours are mixed


def middle_square(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns [4] float64, left, top, right and bottom of the largest square."""
    width, height = tf.cast(width, tf.float64), tf.cast(height, tf.float64)
    side = tf.minimum(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return tf.stack([x, y, width - x, height - y])


def resize(pixels: tf.Tensor, size: int, box: tf.Tensor) -> tf.Tensor:
    """Crops to `box` and resizes, with the result of Image.resize(..., BILINEAR).

    Pillow's arguments `box` and `reducing_gap` are `box` and `GAP`.

    Args:
      pixels: [H, W, C] uint8.
      size: S.
      box: [4] float64, as from `middle_square`; it may end within pixels.

    Returns:
      [S, S, C] uint8.
    """
    pixels, box = _reduced(pixels, size, box)
    box = tf.cast(tf.cast(box, tf.float32), tf.float64)  # Pillow's in C are floats
    shape = tf.shape(pixels)
    across = _weights(box[0], box[2], shape[1], size)  # [W, S]
    down = _weights(box[1], box[3], shape[0], size)  # [H, S]

    def channel(plane):  # one after the other: in 8 bytes per pixel
        rows = _rounded(tf.cast(plane, tf.float64) @ across)  # [H, S]
        return _rounded(tf.matmul(down, rows, transpose_a=True))  # [S, S]

    planes = tf.transpose(pixels, [2, 0, 1])
    of = tf.TensorSpec([size, size], tf.float64)
    resized = tf.map_fn(channel, planes, parallel_iterations=1, fn_output_signature=of)
    return tf.cast(tf.transpose(resized, [1, 2, 0]), tf.uint8)


def on_white(pixels: tf.Tensor, size: int, box: tf.Tensor) -> tf.Tensor:
    """Resizes [H, W, 4] with transparency on white paper: [S, S, 3]."""

    def resized():
        values = tf.cast(pixels, tf.int32)
        alpha = values[..., 3:]
        premultiplied = tf.concat([_by_255(values[..., :3] * alpha), alpha], axis=-1)
        values = resize(tf.cast(premultiplied, tf.uint8), size, box)
        colour, alpha = tf.split(tf.cast(values, tf.int32), [3, 1], axis=-1)
        divided = tf.minimum(_OPAQUE * colour // tf.maximum(alpha, 1), _OPAQUE)
        colour = tf.where((alpha == 0) | (alpha == _OPAQUE), colour, divided)
        return tf.cast(tf.concat([colour, alpha], axis=-1), tf.uint8)

    as_it_is = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], size))
    values = tf.cond(as_it_is, lambda: pixels, resized)
    values = tf.cast(tf.ensure_shape(values, [size, size, 4]), tf.int32)
    colour, alpha = tf.split(values, [3, 1], axis=-1)
    paper = _OPAQUE * (_OPAQUE - alpha)
    mixed = _by_255((colour * alpha + paper) * _FINE, _FINE) // _FINE
    return tf.cast(tf.where(alpha == 0, _OPAQUE, mixed), tf.uint8)


def _by_255(product: tf.Tensor, unit: int = 1) -> tf.Tensor:
    """Returns values divided by 255 and rounded, by fast integer arithmetic."""
    product += 128 * unit
    return (product // 256 + product) // 256


def _reduced(
    pixels: tf.Tensor, size: int, box: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels in and near the box, reduced, and the box within them.

    Where there are many pixels, means of whole blocks stand for them.
    """
    pitches = (box[2:] - box[:2]) / size  # [2] across and down
    factors = tf.maximum(tf.cast(pitches / GAP, tf.int32), 1)
    shape = tf.shape(pixels)
    ends = tf.cast(tf.stack([shape[1], shape[0]]), tf.float64)
    first = tf.maximum(tf.floor(box[:2] - pitches / 2), 0.0)
    last = tf.minimum(tf.math.ceil(box[2:] + pitches / 2), ends)
    left, top, right, bottom = tf.unstack(
        tf.cast(tf.concat([first, last], 0), tf.int32), 4
    )
    pixels = pixels[top:bottom, left:right]
    box = (box - tf.tile(first, [2])) / tf.tile(tf.cast(factors, tf.float64), [2])
    means = lambda: _block_means(pixels, factors[1], factors[0])  # noqa: E731
    return tf.cond(tf.reduce_any(factors > 1), means, lambda: pixels), box


def _block_means(pixels: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    """Returns [H / down, W / across, C], rounded up; the last blocks may be smaller."""
    sums, shape = tf.cast(pixels, tf.int32), tf.shape(pixels)
    counts = []
    for axis, factor in enumerate((down, across)):
        blocks = tf.range(shape[axis]) // factor  # ascending
        sums = tf.math.segment_sum(sums, blocks)  # of the first axis
        counts.append(tf.math.segment_sum(tf.ones_like(blocks), blocks))
        sums = tf.transpose(sums, [1, 0, 2])
    count = counts[0][:, tf.newaxis] * counts[1]  # [H, W]
    # Pillow multiplies by a rounded inverse, which is not the same as dividing.
    inverse = tf.cast(2.0**24 / tf.cast(count, tf.float32), tf.int64)
    sums = tf.cast(sums + (count // 2)[..., tf.newaxis], tf.int64)
    return tf.cast(sums * inverse[..., tf.newaxis] // 2**24, tf.uint8)


def _weights(start: tf.Tensor, end: tf.Tensor, length: tf.Tensor, size: int):
    """Returns [length, S] weights of input pixels for each output pixel: a triangle."""
    scale = tf.cast(tf.cast(end - start, tf.float32), tf.float64) / size
    reach = tf.maximum(scale, 1.0)
    centers = start + (tf.range(size, dtype=tf.float64) + 0.5) * scale  # [S]
    place = tf.range(length, dtype=tf.int32)[:, tf.newaxis]
    first = tf.cast(centers - reach + 0.5, tf.int32)
    last = tf.cast(centers + reach + 0.5, tf.int32)
    distance = (tf.cast(place, tf.float64) - centers + 0.5) / reach
    weights = tf.maximum(1.0 - tf.abs(distance), 0.0)
    weights = tf.where((place >= first) & (place < last), weights, 0.0)
    weights /= tf.reduce_sum(weights, axis=0)
    return tf.floor(0.5 + weights * 2.0**_WEIGHT_BITS)


def _rounded(sums: tf.Tensor) -> tf.Tensor:
    """Returns whole numbers of 0 to 255 from sums in fixed point."""
    return tf.clip_by_value(tf.floor(sums / 2.0**_WEIGHT_BITS + 0.5), 0.0, 255.0)
