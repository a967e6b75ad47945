"""A pickle can run nothing, forge nothing, eat no memory; broken ones are refused."""

import io
import pathlib
import pickle
import random
import tracemalloc
import warnings

import numpy as np
import pytest
from hostile_pickles import (
    BOMBS,
    BUILT_TWICE,
    BY_HAND,
    BYTES,
    F4,
    FLOATS,
    FORGERIES,
    NAMES,
    Forged,
    attacks,
    pickled,
)

from leo_tf.data_pipeline.release_pickle import reader as release_pickle
from leo_tf.errors import InputError

_PICKLES = pathlib.Path(__file__).parents[2] / "pickles"
_SMALL = [
    _PICKLES / f"{name}.pkl"
    for name in ("py27_c_p0_S", "py27_c_p2_ordered", "py311_p2_U", "py311_p5_O")
]


def _refused(content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        release_pickle.loads(content, "some/file.pkl")
    message = str(caught.value)
    assert message.startswith("some/file.pkl: byte ")
    assert "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize("attack", attacks(""))
def test_no_file_can_run_anything(attack, tmp_path):
    canary = tmp_path / "canary"
    _refused(attacks(canary)[attack])
    assert not canary.exists()


def test_the_attacks_are_real(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(attacks(canary)["GLOBAL REDUCE"])
    assert canary.exists()


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_forged_array_state_is_refused(forgery, protocol):
    _refused(pickled(protocol, embeddings=Forged(FORGERIES[forgery])))


def test_an_honest_state_by_the_same_road_is_read():
    # Or the forgeries above could be refused for a reason of their own.
    forged = Forged((1, (3, 4), F4, False, BYTES))
    read = release_pickle.loads(pickled(2, embeddings=forged))
    np.testing.assert_array_equal(read["embeddings"], FLOATS)


@pytest.mark.parametrize("what", BUILT_TWICE)
def test_a_state_is_set_once(what):
    assert release_pickle.loads(BY_HAND)["embeddings"] == 1.0
    assert f"one {what} state" in _refused(BUILT_TWICE[what])


@pytest.mark.parametrize("path", _SMALL, ids=lambda path: path.stem)
def test_every_truncation_is_refused(path):
    content = path.read_bytes()
    for length in range(len(content)):
        _refused(content[:length])


@pytest.mark.parametrize("path", _SMALL, ids=lambda path: path.stem)
def test_a_damaged_byte_is_read_as_data_or_refused(path):
    content = path.read_bytes()
    rng = random.Random(path.stem)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] = rng.randrange(256)
        try:
            read = release_pickle.loads(bytes(damaged))
        except InputError:
            refused += 1
            continue
        assert read["embeddings"].shape == (12, 8) and len(read["keys"]) == 12
    assert refused > 50


@pytest.mark.parametrize(
    "content, found",
    [
        (pickled(keys=[1, 2, 3]), "type int"),
        (pickled(keys=["a", None, "b"]), "type NoneType"),
        (pickled(keys=np.array([1.0, 2.0, 3.0])), "type Array"),
        (pickled(keys=np.array([["a"], ["b"], ["c"]])), "(3, 1)"),
        (pickled(embeddings=FLOATS[0]), "(4,)"),
        (pickled(embeddings=np.array(["a", "b"])), "dtype U"),
        (pickled(other=1), "'other'"),
        (pickle.dumps({"embeddings": FLOATS}), "embeddings"),
        (pickle.dumps([FLOATS, NAMES], 2), "type list"),
        (pickle.dumps(None), "type NoneType"),
        (pickled() + b"more", "4 more bytes"),
        (b"\x80\x06}.", "6"),
        (b"K\x01K\x02.", "2"),
        (b"h\x00.", "none"),
        (b"g-1\n.", "-1"),
        (b"Nq\x05.", "memo number 0"),
        (b"t.", "none"),
        (b"u.", "none"),
        (b"\x87.", "none"),
        (b"I12x\n.", "12x"),
        (b"I\n.", "''"),
        (b"\x8a\xff" + b"\xff" * 255 + b".", "255 bytes"),
        (b"S'\\x4'\n.", "escape"),
        (b"Sabc\n.", "abc"),
        (b"V\\u12\n.", "escape"),
        (b"X\x02\x00\x00\x00\xff\xff.", "other bytes"),
        (b"", "end of the file"),
        (b"PK\x03\x04", "PERSID"),
        (b"<html>", "<"),
        (b"\x89HDF\r\n\x1a\n", "b'H'"),
        (b"\x93NUMPY", "none"),
    ],
)
def test_every_other_content_is_refused_saying_what_was_found(content, found):
    assert found in _refused(content)


def test_the_error_names_the_offset_of_what_was_found():
    content = pickle.dumps({"embeddings": FLOATS, "keys": print}, 2)
    offset = content.index(b"c__builtin__\nprint")
    message = _refused(content)
    assert f": byte {offset}: " in message and "__builtin__.print" in message


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_asks_for_time_or_memory_is_refused(bomb):
    _refused(BOMBS[bomb])  # for how much of them: tests/hostile


@pytest.mark.parametrize("what", ["name", "scalar"])
def test_a_long_name_named_again_and_again_is_not_copied(what):
    bombs = [bomb for name, bomb in BOMBS.items() if f"one long {what}" in name]
    assert "names no longer than the file" in _refused(*bombs)


@pytest.mark.parametrize(
    "damage",
    [b"\xc3A", b"\xa9\xa9", b"\xc4\x80", b"\xc0\x80", b"\xff\xfe", b"\xe2\x82\xac"],
)
@pytest.mark.parametrize("place", [0, 65_535, 65_536, 120_000, -3, -2])
def test_long_text_that_is_no_latin1_is_refused(damage, place):
    table = np.full((10_000, 2), 42.0, np.float64)
    names = [f"{i}-a-a_{i}" for i in range(10_000)]
    content = bytearray(pickled(2, embeddings=table, keys=names))
    length = table.nbytes  # all of it ASCII
    start = content.index(b"X" + length.to_bytes(4, "little")) + 5
    release_pickle.loads(bytes(content))
    place = start + place % length
    content[place : place + len(damage)] = damage
    _refused(bytes(content))


def test_a_real_file_takes_little_more_than_its_array():
    table = np.random.default_rng(0).normal(size=(1000, 640)).astype(np.float32)
    names = [f"{i}-c-c_{i}" for i in range(1000)]
    for protocol in range(6):
        content = pickle.dumps({"embeddings": table, "keys": names}, protocol)
        file = io.BytesIO(content)
        tracemalloc.start()
        release_pickle.read_file(file, "file")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (3.5 if protocol == 0 else 1.2) * len(content)


def test_warnings_as_errors_change_nothing():
    content = b"}(S'embeddings'\nS'\\q'\nu."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "keys" in _refused(content)
