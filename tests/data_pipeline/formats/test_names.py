"""Tests that names decode as written, and give their class in linear time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leo_tf.data_pipeline.formats.names import (
    class_of_key,
    classes_of_keys,
    decode_names,
)


@pytest.mark.parametrize(
    "key, name",
    [
        ("0-n01-n01_7.JPEG", "n01"),
        ("é-n01-n01_7.JPEG", "n01"),
        ("-a-a_", "a"),
        ("3-a_b-a_b_c-d_e", "a_b"),
        ("3-a-b-a-b_c", "a-b"),
        ("3-aye-aye-aye-aye_12.jpg", "aye-aye"),
        ("3--a--a_1", "-a"),
        # Two readings: the longer one, for more of the key repeats itself.
        ("7-aye-aye_lemur-aye-aye_lemur_3.jpg", "aye-aye_lemur"),
        ("7-a-a_a-a_a", "a"),
        ("0-a-b_1", None),
        ("0-a-a", None),
        ("0-a-aa_1", None),
        ("a-a_1", None),
        ("0--_1", None),
        ("0_a_a_1", None),
        ("", None),
    ],
)
def test_the_class_of_a_key_may_hold_hyphens_and_underscores(key, name):
    assert class_of_key(key) == name


_WORDS = st.text("ab-_é", min_size=1, max_size=6)


@settings(max_examples=500)
@given(index=st.text("0é_", max_size=3), name=_WORDS, rest=st.text("ab-_.", max_size=6))
def test_a_key_is_read_as_the_longest_class_that_fits_it(index, name, rest):
    key = f"{index}-{name}-{name}_{rest}"
    fitting = {
        key[start:end]
        for start in [len(index) + 1]
        for end in range(start + 1, len(key))
        if key[start:].startswith(f"{key[start:end]}-{key[start:end]}_")
    }
    assert name in fitting
    assert class_of_key(key) == max(fitting, key=len)


def test_half_a_million_keys_take_seconds_and_long_ones_no_more():
    many = [f"{i}-n{i % 351:08d}-n{i % 351:08d}_{i}.JPEG" for i in range(448_695)]
    hostile = ["0-" + "-" * n + "_" * n for n in [2000] * 99 + [10**6]]
    start = time.process_time()
    classes = classes_of_keys(many, "file")
    assert [class_of_key(key) for key in hostile] == [None] * 100
    assert time.process_time() - start < 10
    assert classes[351] == "n00000000" and len(set(classes)) == 351


def test_byte_names_are_utf8_or_all_of_them_latin1():
    assert decode_names(["é".encode(), "ß"]) == ["é", "ß"]
    assert decode_names([b"\xe9", "é".encode()]) == ["é", "Ã©"]
