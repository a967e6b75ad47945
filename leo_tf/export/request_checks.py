"""Checks a request inside the graph, so that every program that loads it has them.

A request is a dict of tensors by field. Every check returns it, and computations on the
returned tensors wait for the check. So nothing of a bad request is computed, and of
several mistakes the first in the order below is reported. The error is TensorFlow's
InvalidArgumentError, and its text contains "field: expected ..., received ...".

XLA omits assertions, and wrong labels would then give finite wrong answers. So users of
this module must not be compiled with `jit_compile`.

Shapes: S support examples, M queries, N way, D embedding size, P numbers of a class.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

Request = dict[str, tf.Tensor]

# Lengths of rows whose squares fit in float32, 1.2e-38 to 3.4e38, with a margin.
_SHORTEST, _LONGEST = 1e-18, 1e18


class Limits(NamedTuple):
    """The limits of an export's requests."""

    embedding_size: int  # D
    parameters: int  # P, including the class mean
    max_classes: int  # N at most
    max_support: int  # S at most
    way: int | None = None  # the only N, for a method of one way
    means: int = 0  # size of the class mean that follows a classifier, if any


def check_support(request: Request, limits: Limits) -> Request:
    """Checks `support` [S, D] and `labels` [S], then adds `way` [] int32, N."""
    request = _check_matrix(request, "support", "S", limits.embedding_size)
    request = _check_count(request, "support", limits.max_support, "examples")
    request = check_labels(request, "support", tf.shape(request["support"])[0], limits)
    return _check_values(request, "support", _SHORTEST)


def check_labels(
    request: Request, field: str, rows: tf.Tensor, limits: Limits
) -> Request:
    """Checks `labels` [S], one per row of `field`, and adds `way`."""
    shape = tf.shape(request["labels"])
    message = "labels: expected shape [S], received shape {}"
    request = require(request, tf.equal(tf.size(shape), 1), message, shape)
    request["labels"] = tf.ensure_shape(request["labels"], [None])
    count = tf.size(request["labels"])
    message = f"labels: expected {{}} labels, one per row of `{field}`, received {{}}"
    request = require(request, tf.equal(count, rows), message, rows, count)
    return _check_classes(request, limits)


def check_queries(request: Request, limits: Limits) -> Request:
    """Checks `queries` [M, D]; M may be 0."""
    request = _check_matrix(request, "queries", "M", limits.embedding_size)
    return _check_values(request, "queries", _SHORTEST)


def check_classifier(request: Request, limits: Limits) -> Request:
    """Checks `classifier` [N, P], as `adapt` returns it."""
    request = _check_matrix(request, "classifier", "N", limits.parameters)
    request = _check_count(request, "classifier", limits.max_classes, "classes")
    return _check_values(request, "classifier", shortest=0.0)


def unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Returns [M, D] rows of length 1; a zero row stays zero.

    Source: `EmbeddingTable.normalized`, which gives training data length 1.
    """
    scaled, lengths = _scaled(rows)
    return scaled / tf.maximum(lengths, 1.0)


def _scaled(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns rows divided by their largest entry, and the lengths: 0 or at least 1."""
    largest = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    scaled = rows / tf.maximum(largest, np.finfo(rows.dtype.as_numpy_dtype).tiny)
    return scaled, tf.sqrt(tf.reduce_sum(scaled**2, axis=1, keepdims=True))


def require(
    request: Request, ok: tf.Tensor, message: str, *details: tf.Tensor | int
) -> Request:
    """Returns the request if `ok`, else fails with `message` filled with `details`."""
    text = tf.strings.format(message, details)
    with tf.control_dependencies([tf.debugging.Assert(ok, [text])]):
        return {field: tf.identity(value) for field, value in request.items()}


def require_rows(
    request: Request, bad: tf.Tensor, message: str, *details: tf.Tensor
) -> Request:
    """Requires that no row is `bad`; reports `details` and number of the first one."""
    row = _first(bad)
    values = [
        tf.pad(detail, [[0, 1]])[row] for detail in details
    ]  # works without rows too
    return require(request, ~tf.reduce_any(bad), message, *values, row)


def _check_matrix(request: Request, field: str, rows: str, columns: int) -> Request:
    """Requires the shape [any, columns], and sets it as the static shape."""
    shape = tf.shape(request[field])
    # A comparison with [columns] cannot fail, whatever the rank.
    ok = tf.equal(tf.size(shape), 2) & tf.reduce_all(tf.equal(shape[1:], [columns]))
    message = f"{field}: expected shape [{rows}, {columns}], received shape {{}}"
    request = require(request, ok, message, shape)
    return {**request, field: tf.ensure_shape(request[field], [None, columns])}


def _check_count(request: Request, field: str, most: int, unit: str) -> Request:
    count = tf.shape(request[field])[0]
    message = f"{field}: expected 2 to {most} {unit}, received {{}}"
    return require(request, (count >= 2) & (count <= most), message, count)


def _check_classes(request: Request, limits: Limits) -> Request:
    """Requires labels 0 to N - 1, each at least once, and adds `way`."""
    most, labels = limits.max_classes, request["labels"]
    bad = (labels < 0) | (labels >= most)
    expected = f"at most {most} classes, integers from 0 to {most - 1}"
    message = f"labels: expected {expected}, received {{}} in row {{}}"
    request = require_rows(request, bad, message, labels)
    labels = tf.cast(request["labels"], tf.int32)
    way = tf.reduce_max(labels) + 1
    expected = "at least 2" if limits.way is None else f"{limits.way}"
    ok = way >= 2 if limits.way is None else tf.equal(way, limits.way)
    message = f"labels: expected {expected} classes, received {{}}"
    request = require({**request, "way": way}, ok, message, way)
    way = request["way"]
    empty = tf.equal(tf.math.bincount(labels, minlength=way), 0)  # [N]
    message = "labels: expected all classes from 0 to {}, received none of {}"
    return require(request, ~tf.reduce_any(empty), message, way - 1, _first(empty))


def _check_values(request: Request, field: str, shortest: float) -> Request:
    """Requires finite rows with lengths from `shortest` to `_LONGEST`."""
    bad = ~tf.reduce_all(tf.math.is_finite(request[field]), axis=1)
    message = f"{field}: expected finite numbers, received NaN or infinity in row {{}}"
    request = require_rows(request, bad, message)
    _, lengths = _scaled(request[field])
    largest = tf.reduce_max(tf.abs(request[field]), axis=1)
    lengths = largest * tf.reshape(lengths, [-1])
    bad = (lengths < shortest) | (lengths > _LONGEST)
    expected = f"rows of length {shortest:g} to {_LONGEST:g}"
    message = f"{field}: expected {expected}, received length {{}} in row {{}}"
    return require_rows(request, bad, message, lengths)


def _first(bad: tf.Tensor) -> tf.Tensor:
    """Returns [] the index of the first True; 0 if there is none."""
    return tf.argmax(tf.pad(tf.cast(bad, tf.int32), [[0, 1]]))
