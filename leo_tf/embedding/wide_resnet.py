"""Wide residual networks such as `wrn_28_10`, the source of the paper's features.

Shapes: n pictures, S pixels a side.

Source: Zagoruyko and Komodakis, 2016 (arXiv:1605.07146), blocks of batch normalisation,
ReLU and 3 x 3 convolution, twice, with dropout between. From the LEO paper
(arXiv:1807.05960, on pre-training): depth 28, width 10, strides of 2 in each group, and
features from layer 21, averaged over space. Counting the first convolution as layer 1
and two layers per block, that is the end of the third group's second block. The paper
does not say whether its features are taken before or after the next normalisation and
ReLU: here it is after, so that none is negative.
"""

import re

import keras
from keras import layers, regularizers

_GROUPS = (16, 32, 64)  # channels, to be multiplied by the width
_STEM = 16
_FEATURE_BLOCK = 2  # of the third group, or its last if it has fewer
_LAST = "last"
_NAME = re.compile(r"wrn_([1-9][0-9]{0,2})_([1-9][0-9]?)")


def shape_of(name: str) -> tuple[int, int] | None:
    """Returns depth and width of a name wrn_DEPTH_WIDTH; None for other names.

    The depth is 6 per block, plus 4: 10, 16, 22, 28 and so on.
    """
    found = _NAME.fullmatch(name)
    if found is None or (int(found[1]) - 4) % 6 or int(found[1]) < 10:
        return None
    return int(found[1]), int(found[2])


def wide_resnet(
    depth: int,
    width: int,
    side: int,
    num_classes: int,
    *,
    dropout_rate: float = 0.0,
    l2_penalty_weight: float = 0.0,
    dtype: str = "float32",
    synchronized: bool = False,
) -> keras.Model:
    """Returns a classifier of pictures [n, S, S, 3] of 0 to 255: logits [n, classes].

    `features_of` has what LEO gets: 64 * width numbers, 640 at width 10.

    Args:
      depth, width: as in `shape_of`.
      side: S.
      dropout_rate: between the convolutions of a block, while training.
      l2_penalty_weight: times the sum of squares of each kernel, added to the loss;
        5e-4 of half the sum, as the paper has it, is 2.5e-4 here.
      dtype: of all but the means over space and the logits, which are float32;
        mixed_bfloat16 keeps float32 weights.
      synchronized: normalise over the pictures of all replicas of `tf.distribute`.
    """
    kernels = {
        "dtype": dtype,
        "padding": "same",
        "use_bias": False,
        "kernel_initializer": "he_normal",
        "kernel_regularizer": regularizers.L2(l2_penalty_weight),
    }

    def normalised(x, name):
        # The momentum of the authors' code: Keras's default of 0.99 wants more steps.
        options = {"momentum": 0.9, "epsilon": 1e-5, "synchronized": synchronized}
        normalise = layers.BatchNormalization(
            **options, dtype=dtype, name=f"{name}_norm"
        )
        return layers.ReLU(dtype=dtype, name=f"{name}_relu")(normalise(x))

    def block(x, channels, stride, name):
        active = normalised(x, f"{name}_1")
        convolve = layers.Conv2D(channels, 3, stride, name=f"{name}_conv1", **kernels)
        y = normalised(convolve(active), f"{name}_2")
        y = layers.Dropout(dropout_rate, dtype=dtype, name=f"{name}_dropout")(y)
        y = layers.Conv2D(channels, 3, name=f"{name}_conv2", **kernels)(y)
        if stride > 1 or x.shape[-1] != channels:
            skip = layers.Conv2D(channels, 1, stride, name=f"{name}_skip", **kernels)
            x = skip(active)
        return layers.Add(dtype=dtype, name=f"{name}_sum")([x, y])

    inputs = keras.Input((side, side, 3), name="pictures")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype=dtype, name="scaled")(inputs)
    x = layers.Conv2D(_STEM, 3, name="stem", **kernels)(x)
    blocks = (depth - 4) // 6
    for group, channels in enumerate(_GROUPS, start=1):
        for number in range(1, blocks + 1):
            stride = 2 if number == 1 else 1
            x = block(x, channels * width, stride, f"group{group}_block{number}")
    x = normalised(x, _LAST)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(x)
    penalty = regularizers.L2(l2_penalty_weight)
    head = layers.Dense(
        num_classes, kernel_regularizer=penalty, dtype="float32", name="logits"
    )
    return keras.Model(inputs, head(x), name=f"wrn_{depth}_{width}")


def multiplications(depth: int, width: int, side: int) -> int:
    """Returns the multiplications of the convolutions of a forward pass per picture."""
    total, channels = side**2 * 9 * 3 * _STEM, _STEM
    for group in _GROUPS:
        side, wide = (side + 1) // 2, group * width
        first = 9 * channels * wide + 9 * wide**2 + channels * wide  # with the skip
        further = ((depth - 4) // 6 - 1) * 2 * 9 * wide**2
        total, channels = total + side**2 * (first + further), wide
    return total


def features_of(model: keras.Model) -> keras.Model:
    """Returns pictures -> features [n, D] of a network of `wide_resnet`."""
    names = {layer.name for layer in model.layers}
    next_block = f"group{len(_GROUPS)}_block{_FEATURE_BLOCK + 1}_1"
    tapped = next_block if f"{next_block}_relu" in names else _LAST
    kept = model.get_layer(f"{tapped}_relu").output
    pool = layers.GlobalAveragePooling2D(dtype="float32", name="features")
    return keras.Model(model.input, pool(kept), name=f"{model.name}_features")
