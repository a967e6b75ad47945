"""JSON that every reader takes, and files that only claim to be JSON."""

import json
import math
import os

import pytest

from leo_tf.files import finite, read_json, to_json


def refuse(token):
    pytest.fail(f"{token} is no JSON")


def test_what_is_not_finite_becomes_null_wherever_it_is():
    value = {
        "a": [math.inf, {"b": -math.inf}],
        "c": (math.nan, 1.5),
        "d": "NaN",
        "e": 7,
    }
    read = json.loads(to_json(value), parse_constant=refuse)
    expected = {"a": [None, {"b": None}], "c": [None, 1.5], "d": "NaN", "e": 7}
    assert read == expected


def test_every_finite_float_comes_back_bit_for_bit(tmp_path):
    values = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3]
    (tmp_path / "file").write_bytes(to_json(values))
    read = read_json(tmp_path / "file", 1000)
    assert [value.hex() for value in read] == [value.hex() for value in values]


@pytest.mark.parametrize(
    ("number", "expected"), [(1.5, 1.5), (None, None), (math.nan, None), (0, 0)]
)
def test_a_number_that_json_lacks_is_none(number, expected):
    assert finite(number) == expected


def test_a_file_may_have_as_many_bytes_as_allowed_and_no_more(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b'"12345"')
    assert read_json(path, 7) == "12345"
    with pytest.raises(ValueError, match="7 bytes, more than 6"):
        read_json(path, 6)


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "pipe", 100)
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path, 100)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"", b"\xff", b"1" * 10_000])
def test_what_is_no_json_is_a_value_error(tmp_path, text):
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "file", 1_000_000)


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", 100)
