"""Converts TensorFlow Serving's JSON: request bodies to arrays, outputs to bodies.

It accepts and refuses the same requests as TensorFlow Serving, with messages of our own
that name the field. If orjson is installed, reading is faster. A body that it refuses,
or may have rounded, is read again by Python's own reader.

Source: github.com/tensorflow/serving, g3doc/api_rest.md and util/json_tensor.cc.
"""

import base64
import binascii
import codecs
import contextlib
import itertools
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from leo_tf.errors import refused

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # a module has no other type

_DEFAULT_SIGNATURE = "serving_default"
_BYTES = "b64"
# Float32 does not have every integer from here on, so one written without a decimal
# point is refused instead of rounded.
_FLOAT_INTEGERS = 2**24
_MOST_DIMENSIONS = 8
_SHOWN_CHARACTERS = 80
# From here on orjson's floats may be integers with more digits than it can read.
_INTEGERS_OF_ORJSON = 2.0**63
_GZIP = 16 + zlib.MAX_WBITS
# A stream may have several parts. Each costs a copy of the rest.
_MOST_PARTS = 100


def inflate(body: bytes, most_bytes: int) -> bytes | None:
    """Decompresses gzip; returns None, and stops, beyond `most_bytes`.

    Raises:
      RequestError: if it is damaged.
    """
    parts: list[bytes] = []
    expected, room = "a complete gzip stream, as in Content-Encoding", most_bytes
    for _ in range(_MOST_PARTS):
        reader = zlib.decompressobj(_GZIP)
        try:
            parts.append(reader.decompress(body, room + 1))
        except zlib.error as error:
            raise refused("body", expected, str(error)) from None
        room -= len(parts[-1])
        if room < 0:
            return None
        if not reader.eof:
            raise refused("body", expected, "an incomplete one")
        body = reader.unused_data
        if not body:
            return b"".join(parts)
    raise refused("body", expected, f"more than {_MOST_PARTS} streams")


def read_request(
    body: bytes, inputs_of: Callable[[str], Mapping[str, Any]]
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Reads the request in a body.

    Args:
      body: JSON in UTF-8, perhaps with NaN and Infinity.
      inputs_of: maps a signature's name to its inputs, name -> TensorSpec.

    Returns:
      The signature's name; name -> array of its inputs; and True for a list of rows
      ("instances"), which is answered with rows.

    Raises:
      RequestError: for any other body.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if orjson:
        with contextlib.suppress(ValueError):  # then it is read again, or refused below
            found = _understood(orjson.loads(body), inputs_of)
            if not any(map(_may_be_rounded, found[1].values())):
                return found
    try:
        request = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise refused("body", "JSON", str(error) or "other text") from None
    return _understood(request, inputs_of)


def _may_be_rounded(array: np.ndarray) -> bool:
    is_float = array.dtype.kind == "f"
    return is_float and bool(np.any(np.abs(array) >= _INTEGERS_OF_ORJSON))


def _understood(
    request: Any, inputs_of: Callable[[str], Mapping[str, Any]]
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Returns the same as `read_request`, from parsed JSON."""
    if not isinstance(request, dict):
        raise refused("body", "a JSON object", _shown(request))
    signature = request.get("signature_name", _DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise refused("signature_name", "a string", _shown(signature))
    signature = signature or _DEFAULT_SIGNATURE
    specs = inputs_of(signature)
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        received = "both" if by_rows else "neither"
        raise refused("body", "one of `inputs` and `instances`", received)
    if by_rows:
        values = _columns(request["instances"], specs)
    else:
        values = _named(request["inputs"], specs, "inputs")
    inputs = {name: _as_array(values[name], specs[name], name) for name in specs}
    return signature, inputs, by_rows


def _named(values: Any, specs: Mapping[str, Any], field: str) -> dict[str, Any]:
    if not isinstance(values, dict) or _is_bytes(values):
        if len(specs) == 1:
            return dict.fromkeys(specs, values)
        expected = f"an object with {', '.join(sorted(specs))}"
        raise refused(field, expected, _shown(values))
    for name in specs:
        if name not in values:
            raise refused(name, f"a value in `{field}`", "none")
    return values


def _columns(instances: Any, specs: Mapping[str, Any]) -> dict[str, list]:
    """Returns name -> list over the instances."""
    if not isinstance(instances, list) or not instances:
        raise refused("instances", "a list of objects", _shown(instances))
    rows = [_named(each, specs, "instances") for each in instances]
    for name in itertools.chain.from_iterable(rows):
        if name not in specs:
            expected = f"only {', '.join(sorted(specs))}"
            raise refused("instances", expected, _shown(name))
    return {name: [row[name] for row in rows] for name in specs}


def _as_array(value: Any, spec: Any, name: str) -> np.ndarray:
    """Returns an array of float32, int64 or string, from nested lists or one value."""
    shape, flat = [], [value]
    while flat and isinstance(flat[0], list):
        size = len(flat[0])
        for each in flat:
            if not isinstance(each, list) or len(each) != size:
                received = str(len(each)) if isinstance(each, list) else _shown(each)
                raise refused(name, f"lists of one length, {size} here", received)
        shape.append(size)
        flat = list(itertools.chain.from_iterable(flat))
    if len(shape) > _MOST_DIMENSIONS:
        raise refused(name, f"{_MOST_DIMENSIONS} dimensions or fewer", f"{len(shape)}")
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    if dtype.kind == "O":
        array = np.empty(len(flat), object)
        array[:] = [_bytes(each, name) for each in flat]
        return array.reshape(shape)
    return _numbers(flat, dtype, name).reshape(shape)


def _is_bytes(value: Any) -> bool:
    """Tells whether it is TensorFlow Serving's JSON for bytes."""
    return isinstance(value, dict) and [*value] == [_BYTES]


def _bytes(value: Any, name: str) -> bytes:
    """Returns text as UTF-8, or decoded base64."""
    text = value[_BYTES] if _is_bytes(value) else value
    if not isinstance(text, str):
        raise refused(name, 'text, or {"b64": text in base64}', _shown(value))
    try:
        if text is value:
            return text.encode()
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused(name, "UTF-8, or base64 in `b64`", str(error)) from None


def _numbers(flat: list, dtype: np.dtype, name: str) -> np.ndarray:
    is_float = dtype.kind == "f"
    taken = {int, float} if is_float else {int}
    types = set(map(type, flat))
    if not types <= taken:  # True is not 1
        wrong = next(each for each in flat if type(each) not in taken)
        raise refused(name, "numbers" if is_float else "integers", _shown(wrong))
    if is_float:
        integers = (each for each in flat if type(each) is int)
        if int in types and any(abs(each) >= _FLOAT_INTEGERS for each in integers):
            raise refused(name, "integers below 2^24, or decimals", "a larger one")
        exact = np.array(flat, np.float64)
        limit = np.finfo(dtype).max
        if np.any(np.isfinite(exact) & (np.abs(exact) > limit)):
            raise refused(name, f"numbers up to {limit:.2g}", "a larger one")
        return exact.astype(dtype)
    try:
        return np.array(flat, dtype)
    except OverflowError:
        raise refused(name, "integers of 64 bits", "a larger one") from None


def write_answer(outputs: dict[str, np.ndarray], by_rows: bool) -> bytes:
    """Returns the body of `outputs`, with NaN and Infinity by these names.

    Numbers are the same with and without orjson; blanks are not.

    Raises:
      RequestError: if the request had rows, and the outputs have unequal numbers.
    """
    values = {name: value.tolist() for name, value in sorted(outputs.items())}
    only = next(iter(values.values())) if len(values) == 1 else None
    # orjson would write null for NaN and infinity.
    is_finite = all(np.all(np.isfinite(value)) for value in outputs.values())
    write = orjson.dumps if orjson and is_finite else _written
    if not by_rows:
        return write({"outputs": values if only is None else only})
    sizes = {name: np.shape(value)[:1] for name, value in outputs.items()}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        words = (f"{name} {list(size)}" for name, size in sorted(sizes.items()))
        expected = "`inputs`, because the outputs have different first dimensions"
        raise refused("instances", expected, f"`instances` ({', '.join(words)})")
    rows = [dict(zip(values, row)) for row in zip(*values.values())]
    return write({"predictions": rows if only is None else only})


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


def _shown(value: Any) -> str:
    """Returns JSON, shortened to one line."""
    if isinstance(value, (list, dict)):  # may be huge, or too deep for `dumps`
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = json.dumps(value)
    cut = f"{text[:_SHOWN_CHARACTERS]}..."
    return text if len(text) <= _SHOWN_CHARACTERS else cut
