"""Random views of training pictures, batched: crop, flip and colour.

Shapes: n pictures, H pixels a side as they are stored, S as the network gets them.

Source: the recipe behind the paper's features (arXiv:1807.05960): crops,
flips and colour jitter. How far each goes is what torchvision's RandomResizedCrop and
ColorJitter(0.4) do, but that the crop stays square.
"""

import tensorflow as tf

_JITTER = 0.4  # brightness, contrast and saturation: times 0.6 to 1.4
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_DRAWS = 7  # numbers per picture


def random_views(
    pictures: tf.Tensor, side: int, seed: tf.Tensor, *, flip: bool, smallest_area: float
) -> tf.Tensor:
    """Returns a view of each picture [n, H, H, 3] uint8: [n, S, S, 3], 0 to 255.

    Args:
      side: S.
      seed: [2] int32; the views are a function of it.
      flip: mirrors half of the pictures, left to right.
      smallest_area: smallest area of a crop, as a share of the picture.
    """
    count = tf.shape(pictures)[0]
    draws = tf.random.stateless_uniform((_DRAWS, count), seed)  # [7, n]
    edge = tf.sqrt(smallest_area + (1.0 - smallest_area) * draws[0])
    top, left = draws[1] * (1.0 - edge), draws[2] * (1.0 - edge)
    right = left + edge
    if flip:
        mirrored = draws[3] < 0.5
        left, right = tf.where(mirrored, right, left), tf.where(mirrored, left, right)
    boxes = tf.stack([top, left, top + edge, right], axis=1)  # [n, 4]
    views = tf.image.crop_and_resize(pictures, boxes, tf.range(count), (side, side))
    factors = 1.0 + _JITTER * (2.0 * draws[4:] - 1.0)
    return _jittered(views, *(f[:, None, None, None] for f in tf.unstack(factors)))


def _jittered(views, brightness, contrast, saturation):
    views = views * brightness
    grey = tf.reduce_sum(views * _GREY, axis=-1, keepdims=True)  # [n, S, S, 1]
    mean = tf.reduce_mean(grey, axis=(1, 2), keepdims=True)
    views = mean + contrast * (views - mean)
    grey = mean + contrast * (grey - mean)
    views = grey + saturation * (views - grey)
    return tf.clip_by_value(views, 0.0, 255.0)
