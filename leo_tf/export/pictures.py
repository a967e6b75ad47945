"""Checks and decodes pictures of a request, and embeds them, in the graph.

Shapes: n pictures, S pixels a side for the backbone, D features.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.images.in_graph import (
    decoded,
    is_jpeg,
    is_png,
    pixels_to_decode,
)
from leo_tf.embedding.backbones import HOG, Backbone, backbone_named
from leo_tf.embedding.views import decoded_side, embed_views
from leo_tf.errors import LeoError
from leo_tf.export.request_checks import Request, require, require_rows

# Limits of one picture's file and pixels, and of a request's pixels. While resized, a
# pixel takes 30 bytes. A JPEG larger than needed is decoded at an eighth of its sides.
MOST_BYTES = 2**24
MOST_PIXELS = 2**24
MOST_PIXELS_IN_ALL = 2**27
_AT_ONCE = 32  # pictures that a backbone gets at a time


class Encoder(NamedTuple):
    """Turns pictures into the features that a method was trained on.

    Attributes:
      embed: maps the bytes of files [n] to features [n, D] float32, in a graph.
      pixels: maps the same to the numbers of pixels to decode, [n] int64.
      held: objects that hold its variables.
      metadata: its part of export.json.
    """

    embed: Callable[[tf.Tensor], tf.Tensor]
    pixels: Callable[[tf.Tensor], tf.Tensor]
    held: Sequence[Any]
    metadata: Mapping[str, Any]


def encoder_of(
    made: Mapping[str, Any] | None,
    is_embedded: bool,
    backbone: str | None = None,
    weights: str | None = None,
) -> Encoder | str:
    """Returns the encoder of a run's features, or why there is none.

    Args:
      made: content of embedding.json beside the features, if it exists.
      is_embedded: True for features of the embedded data set.
      backbone, weights: place of the backbone, if it has moved.
    """
    if is_embedded:
        return _encoder(backbone_named(HOG), "whole", np.float16)
    if made is None:
        return "no backbone is recorded for them; --mode=embed records it"
    if made["side"] is None:
        return f"{made['backbone']} takes items of any kind, and stays outside"
    name = backbone or made["backbone"]
    # Random weights first: those of ImageNet may have to be downloaded.
    tried = [weights] if weights else ["none", None]
    wrong = ""
    for each in tried:
        try:
            found = backbone_named(name, each, made["side"])
        except LeoError as error:
            wrong = str(error)
            continue
        if found.in_graph is None:
            return f"{name} does not run in TensorFlow, and stays outside"
        if found.digest == made["weights"]:
            return _encoder(found, made["views"], np.float32)
        wrong = f"{name} is not the backbone that made the features"
    return f"{wrong.rstrip('.')}; --backbone and --backbone_weights give its place"


def _encoder(backbone: Backbone, views: str, kept_as: type) -> Encoder:
    side, in_graph = cast(int, backbone.side), cast(Callable, backbone.in_graph)
    read_side = decoded_side(side, views)  # R
    # A function of the graph, which is stored once and not in every signature.
    files = [tf.TensorSpec([None], tf.string)]
    traced = functools.partial(tf.function, input_signature=files, autograph=False)

    @traced()
    def embed_few(contents):
        # One by one, because many large ones at once might not fit in memory.
        of = tf.TensorSpec([read_side, read_side, 3], tf.uint8)
        one = functools.partial(decoded, size=read_side)
        pictures = tf.map_fn(
            one, contents, parallel_iterations=1, fn_output_signature=of
        )
        features = embed_views(in_graph, pictures, side, views)
        # The embedded data set stores half precision.
        return tf.cast(tf.cast(features, kept_as), tf.float32)

    shape = embed_few.get_concrete_function().structured_outputs.shape  # [None, D]

    @traced()
    def embed(contents):
        # In parts, because a backbone's activations might not fit in memory.
        def more(start, parts):
            few = embed_few(contents[start : start + _AT_ONCE])
            return start + _AT_ONCE, parts.write(start // _AT_ONCE, few)

        parts = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=shape)
        most = tf.maximum(tf.size(contents), 1)  # of none, once: [0, D]
        is_left = lambda start, _: start < most  # noqa: E731
        _, parts = tf.while_loop(is_left, more, (0, parts), parallel_iterations=1)
        return parts.concat()

    @traced()
    def pixels(contents):
        of = tf.TensorSpec([], tf.int64)
        one = functools.partial(pixels_to_decode, size=read_side)
        return tf.map_fn(one, contents, parallel_iterations=1, fn_output_signature=of)

    metadata = {
        "backbone": backbone.name,
        "weights": backbone.digest,
        "preprocessing": backbone.preprocessing,
        "views": views,
        "side": side,
        "formats": ["JPEG", "PNG"],
        "max_picture_bytes": MOST_BYTES,
        "max_picture_pixels": MOST_PIXELS,
        "max_pixels_of_a_request": MOST_PIXELS_IN_ALL,
    }
    return Encoder(embed, pixels, backbone.held, metadata)


def features_of(request: Request, field: str, encoder: Encoder) -> tf.Tensor:
    """Returns the features [n, D] of pictures [n] that `check_pictures` has checked."""
    features = encoder.embed(request[field])
    blank = ~tf.reduce_any(features != 0, axis=1)
    message = f"{field}: expected visible content, received a blank picture in row {{}}"
    return require_rows({"features": features}, blank, message)["features"]


def check_pictures(
    request: Request, field: str, encoder: Encoder, fewest: int, most: int
) -> Request:
    """Checks number, format and size of `field`'s files without decoding them."""
    shape = tf.shape(request[field])
    message = f"{field}: expected a list of pictures, received shape {{}}"
    request = require(request, tf.equal(tf.size(shape), 1), message, shape)
    request = {**request, field: tf.ensure_shape(request[field], [None])}
    count = tf.size(request[field])
    message = f"{field}: expected {fewest} to {most} pictures, received {{}}"
    request = require(request, (count >= fewest) & (count <= most), message, count)
    length = tf.strings.length(request[field])  # [n] bytes
    message = f"{field}: expected at most {MOST_BYTES} bytes, received {{}} in row {{}}"
    request = require_rows(request, length > MOST_BYTES, message, length)
    other = ~(is_jpeg(request[field]) | is_png(request[field]))
    message = f"{field}: expected JPEG or PNG, received something else in row {{}}"
    request = require_rows(request, other, message)

    pixels = encoder.pixels(request[field])
    bad = (pixels < 1) | (pixels > MOST_PIXELS)
    message = f"{field}: expected 1 to {MOST_PIXELS} pixels, received {{}} in row {{}}"
    request = require_rows(request, bad, message, pixels)
    total = tf.reduce_sum(pixels)
    message = f"{field}: expected at most {MOST_PIXELS_IN_ALL} pixels, received {{}}"
    return require(request, total <= MOST_PIXELS_IN_ALL, message, total)
