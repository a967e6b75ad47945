"""Tests that requests and answers are the same with and without orjson."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from running_server import GOOD, INPUTS, with_

from leo_tf.errors import RequestError, refused
from leo_tf.serving import rest_json

pytest.importorskip("orjson", reason="orjson is not installed")
ROWS, INTEGERS = tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64)
SPECS = {
    "serving_default": {"support": ROWS, "labels": INTEGERS, "queries": ROWS},
    "double": {"values": ROWS},
    "embed_images": {"images": tf.TensorSpec([None], tf.string)},
}


def inputs_of(signature):
    if signature not in SPECS:
        raise refused("signature_name", "one of SPECS", repr(signature))
    return SPECS[signature]


def read(body):
    """Returns the content of a body, to the bit, or the error."""
    try:
        signature, inputs, by_rows = rest_json.read_request(body, inputs_of)
    except RequestError as error:
        return str(error)
    arrays = {k: (v.dtype, v.shape, v.tobytes()) for k, v in inputs.items()}
    return signature, arrays, by_rows


def read_both(body, monkeypatch):
    with_orjson = read(body)
    with monkeypatch.context() as without:
        without.setattr(rest_json, "orjson", None)
        assert read(body) == with_orjson, body[:200]
    return with_orjson


def number(text, field="queries"):
    """Returns a good request, with one number written as given."""
    values = {"queries": [[1, 2, "N"]], "labels": [0, 0, 1, 1, 2, "N"]}[field]
    return json.dumps(with_(**{field: values})).replace('"N"', text).encode()


TAKEN = [
    *("0", "-0", "-0.0", "1e5", "1E+2", "1e-400", "0.1", "16777215", "-16777215"),
    *(
        "3.4028234663852886e38",
        "9223372036854775808.0",
        "1e19",
        "18446744073709551616.0",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "0.1000000000000000055511151231257827",
    ),
]
REFUSED = [
    *("16777216", "9223372036854775807", "9223372036854775808", "18446744073709551615"),
    *("18446744073709551616", "-9223372036854775809", "1" + "0" * 38, "9" * 400),
    *("9" * 5000, "1e39", "1e308", "nan", "inf", "Inf", "-NaN", "01", "+1", "1.", ".5"),
    *("-", "0x10", "1_000", "١", "true", "null", '"1"', "[1]", "{}", "", "1 2", "1,"),
]
LABELS_TAKEN = ["2", "-0", "9223372036854775807", "-9223372036854775808"]
LABELS_REFUSED = [
    *("2.0", "2e0", "9223372036854775808", "-9223372036854775809", "1" + "0" * 30),
    *("NaN", "true", "9" * 5000),
]
GOOD_TEXT = json.dumps(GOOD)
TEXTS_TAKEN = {
    "twice the same key": '{"inputs": 3, ' + GOOD_TEXT[1:],
    "twice in inputs": GOOD_TEXT.replace('"labels"', '"labels": 7, "labels"'),
    "escapes": GOOD_TEXT.replace("inputs", "\\u0069nputs"),
    "a lone surrogate": GOOD_TEXT.replace('"labels"', '"\\ud800": 1, "labels"'),
    "a pair": GOOD_TEXT.replace('"labels"', '"\\ud83d\\ude00": 1, "labels"'),
    "a large number aside": GOOD_TEXT.replace(
        '"labels"', f'"x": {"9" * 100}, "labels"'
    ),
    "NaN aside": GOOD_TEXT.replace('"labels"', '"x": NaN, "labels"'),
    "blanks": f" \t\r\n{GOOD_TEXT} \n",
    "a byte order mark": "\ufeff" + GOOD_TEXT,
    "deep aside": GOOD_TEXT.replace(
        '"labels"', f'"x": {"[" * 500}{"]" * 500}, "labels"'
    ),
    "zero": GOOD_TEXT.replace('"labels"', '"\\u0000": 1, "labels"'),
}
TEXTS_REFUSED = {
    "nothing": "",
    "blanks alone": "  ",
    "two": GOOD_TEXT + GOOD_TEXT,
    "a form feed": "\x0c" + GOOD_TEXT,
    "a tab in a text": GOOD_TEXT.replace('"labels"', '"a\tb": 1, "labels"'),
    "a zero in a text": GOOD_TEXT.replace('"labels"', '"a\0b": 1, "labels"'),
    "a zero behind": GOOD_TEXT + "\0",
    "half": GOOD_TEXT[:-5],
    "a comma too many": GOOD_TEXT[:-1] + ",}",
    "quotes": GOOD_TEXT.replace('"', "'"),
    "a comment": GOOD_TEXT + "//",
    "two marks": "\ufeff\ufeff" + GOOD_TEXT,
    "deep": "[" * 500_000,
    "deep and closed": '{"inputs": ' + "[" * 900 + "]" * 900 + "}",
    "too deep aside": GOOD_TEXT.replace('"labels"', f'"x": {"[" * 9999}, "labels"'),
    "a signature of digits": '{"signature_name": ' + "1" * 25 + ', "inputs": {}}',
    "a list of digits": "[" + "1" * 25 + "]",
    "ragged by digits": number("[1, 2], " + "1" * 25).decode(),
    "an escape": GOOD_TEXT.replace("inputs", "\\xinputs"),
}
BYTES_REFUSED = {
    "no UTF-8": b'{"\xff": 1}',
    "no UTF-8 inside": GOOD_TEXT.replace("labels", "l\xe4bels").encode("latin-1"),
    "a surrogate in UTF-8": b'{"\xed\xa0\x80": 1}',
    "overlong": b'{"\xc0\xaf": 1}',
    "UTF-16": GOOD_TEXT.encode("utf-16"),
}


@pytest.mark.parametrize("text", TAKEN)
def test_a_number_is_taken_by_both_and_to_the_bit(text, monkeypatch):
    found = read_both(number(text), monkeypatch)
    last = np.frombuffer(found[1]["queries"][2], np.float32)[-1]
    np.testing.assert_array_equal(last, np.float32(float(text)))


@pytest.mark.parametrize("text", REFUSED)
def test_a_number_is_refused_by_both_in_the_same_words(text, monkeypatch):
    assert "expected" in str(read_both(number(text), monkeypatch)[:300])
    assert isinstance(read(number(text)), str)


def test_labels_are_read_alike(monkeypatch):
    for text in LABELS_TAKEN:
        found = read_both(number(text, "labels"), monkeypatch)
        assert np.frombuffer(found[1]["labels"][2], np.int64)[-1] == int(text)
    for text in LABELS_REFUSED:
        assert isinstance(read_both(number(text, "labels"), monkeypatch), str)


@pytest.mark.parametrize("name", TEXTS_TAKEN)
def test_a_text_is_taken_by_both(name, monkeypatch):
    assert read_both(TEXTS_TAKEN[name].encode(), monkeypatch) == read(
        GOOD_TEXT.encode()
    )


@pytest.mark.parametrize("name", TEXTS_REFUSED)
def test_a_text_is_refused_by_both_in_the_same_words(name, monkeypatch):
    said = read_both(TEXTS_REFUSED[name].encode(), monkeypatch)
    assert isinstance(said, str) and "expected" in said


@pytest.mark.parametrize("name", BYTES_REFUSED)
def test_what_is_no_utf8_is_refused_by_both_in_the_same_words(name, monkeypatch):
    assert "body: expected JSON" in read_both(BYTES_REFUSED[name], monkeypatch)


NUMBERS = st.integers() | st.floats() | st.integers(2**62, 2**66) | st.booleans()
JSON = st.recursive(
    NUMBERS | st.none() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*INPUTS, "values"]), inner, max_size=4)
    ),
    max_leaves=10,
)
MATRIX = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["double", "serving_default", "x"]),
    field=st.sampled_from(["inputs", "instances"]),
    values=MATRIX | JSON,
)
def test_whatever_is_sent_is_read_alike(name, field, values):
    body = json.dumps({"signature_name": name, field: values}).encode()
    with pytest.MonkeyPatch.context() as monkeypatch:
        read_both(body, monkeypatch)


def test_orjson_reads_what_is_usual(monkeypatch):
    def of_python(text):
        raise AssertionError("read by Python's reader")

    monkeypatch.setattr(rest_json.json, "loads", of_python)
    assert isinstance(read(GOOD_TEXT.encode()), tuple)


OUTPUTS = {
    "floats": np.float32([[0, 1 / 3, -0.0], [1e-45, 3.4e38, -1e-5]]),
    "classes": np.array([2**62, -1]),
}


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("names", [["floats"], ["floats", "classes"]])
def test_answers_have_the_same_numbers_to_the_last_digit(by_rows, names, monkeypatch):
    outputs = {name: OUTPUTS[name] for name in names}
    fast = json.loads(rest_json.write_answer(outputs, by_rows))
    monkeypatch.setattr(rest_json, "orjson", None)
    slow = json.loads(rest_json.write_answer(outputs, by_rows))
    assert repr(fast) == repr(slow)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_answers_that_are_not_finite_keep_their_names(value):
    answer = rest_json.write_answer({"way": np.float32(float(value))}, False)
    assert answer == f'{{"outputs": {value}}}'.encode()
    answer = rest_json.write_answer({"a": np.ones(1), "b": np.float32([value])}, False)
    assert value.encode() in answer


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"inputs": {"images": [{"b64": "AP8="}, "\xe9"]}}, [b"\0\xff", b"\xc3\xa9"]),
        ({"inputs": [{"b64": ""}]}, [b""]),
        ({"instances": [{"b64": "AP8="}]}, [b"\0\xff"]),
        ({"instances": [{"images": {"b64": "AP8="}}]}, [b"\0\xff"]),
        ({"inputs": {"images": []}}, []),
    ],
)
def test_bytes_are_read_from_base64_and_text_as_utf8(given, expected, monkeypatch):
    body = json.dumps({"signature_name": "embed_images", **given}).encode()
    for reader in (rest_json.orjson, None):
        monkeypatch.setattr(rest_json, "orjson", reader)
        _, inputs, _ = rest_json.read_request(body, inputs_of)
        assert inputs["images"].dtype == object
        assert inputs["images"].tolist() == expected


@pytest.mark.parametrize(
    "wrong", [7, None, True, 1.5, {"b64": 7}, {"b64": "%%"}, {"b64": "A"}, {"c": "A"}]
)
def test_what_is_neither_text_nor_base64_is_refused(wrong, monkeypatch):
    request = {"signature_name": "embed_images", "inputs": {"images": [wrong]}}
    said = read_both(json.dumps(request).encode(), monkeypatch)
    assert "images: expected" in said
