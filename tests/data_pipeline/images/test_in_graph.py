"""TensorFlow makes the same pixels of a file as Pillow does, to the last bit."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from drawn_pictures import encoded, photo, turned
from PIL import Image

from leo_tf.data_pipeline.images import exif, in_graph, worker

SIDE = 32
_FILE = [tf.TensorSpec([], tf.string)]
decoded = tf.function(
    lambda content: in_graph.decoded(content, SIDE),
    input_signature=_FILE,
    autograph=False,
)
# Smaller, larger and as large as what is made of them; high and wide; 6 times as large
# and more, where Pillow takes means of blocks first; a JPEG that is decoded smaller.
SIZES = [(32, 32), (28, 28), (33, 47), (47, 33), (1, 9), (193, 200), (310, 420)]


def assert_as_by_pillow(content: bytes) -> None:
    expected = np.frombuffer(worker.decoded(content, SIDE), np.uint8)
    given = decoded(content).numpy().ravel()
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("size", SIZES)
def test_jpeg_of_any_size_has_the_pixels_of_training(size):
    image = Image.fromarray(photo(*size))
    assert_as_by_pillow(encoded(image, "JPEG"))
    assert_as_by_pillow(encoded(image, "JPEG", quality=95, subsampling=0))
    assert_as_by_pillow(encoded(image, "JPEG", progressive=True))
    assert_as_by_pillow(encoded(image.convert("L"), "JPEG"))


@pytest.mark.parametrize("size", SIZES)
def test_png_of_any_size_and_kind_has_the_pixels_of_training(size):
    image = Image.fromarray(photo(*size))
    seen_through = Image.fromarray(photo(*size, channels=4))
    deep = photo(*size, channels=1)[..., 0].astype(np.uint16) * 251
    for each in (
        *(image, image.convert("L"), image.convert("1"), image.quantize(64)),
        *(seen_through, seen_through.convert("LA"), Image.fromarray(deep)),
    ):
        assert_as_by_pillow(encoded(each))
    assert_as_by_pillow(encoded(image.quantize(16), bits=4))
    assert_as_by_pillow(encoded(image.quantize(64), transparency=3))
    assert_as_by_pillow(encoded(image.convert("L"), transparency=100))


def test_segments_without_end_are_not_walked_through():
    content = turned(6, "JPEG")
    in_graph = tf.function(exif.orientation)  # eagerly each segment takes milliseconds
    for count, expected in ((10, 6), (2000, 1)):
        segments = b"\xff\xe2\x00\x02" * count
        found = in_graph(tf.constant(content[:2] + segments + content[2:]))
        assert int(found) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_a_picture_is_turned_as_its_camera_says(orientation, kind):
    assert_as_by_pillow(turned(orientation, kind))


def test_exif_is_found_in_either_order_of_bytes_and_behind_other_segments():
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + b"\0\0\0\0"
    content = encoded(photo(40, 50), "JPEG", exif=b"Exif\0\0" + tiff)
    assert exif.orientation(tf.constant(content)).numpy() == 6
    other = b"\xff\xe2" + struct.pack(">H", 5002) + bytes(5000)
    behind = content[:2] + other + content[2:]
    assert exif.orientation(tf.constant(behind)).numpy() == 6


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"a", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\0\0"),
        b"\xff\xd8" + 5 * b"\xff\xe1\xff\xff",
        b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\neXIf",
        b"\x89PNG\r\n\x1a\neXIfII*\0\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\neXIfII*\0\x08\0\0\0\xff\xff",
    ],
)
def test_data_that_make_no_sense_turn_nothing(content):
    assert exif.orientation(tf.constant(content)).numpy() == 1


def test_pixels_are_counted_as_they_will_be_decoded():
    large = photo(400, 600)
    count = in_graph.pixels_to_decode
    assert count(tf.constant(encoded(large)), SIDE) == 400 * 600
    # At a quarter of its sides it still is three times as large as it will be.
    assert count(tf.constant(encoded(large, "JPEG")), SIDE) == 100 * 150
    for side, counted in ((8_000, 1_000**2), (30_000, 30_000**2)):
        content = bytearray(encoded(large, "JPEG"))
        place = content.index(b"\xff\xc0") + 5  # of height and width in the header
        content[place : place + 4] = struct.pack(">HH", side, side)
        assert count(tf.constant(bytes(content)), SIDE) == counted
    bomb = encoded(photo(1, 1))[:16] + struct.pack(">ii", -5, 7) + bytes(9)
    assert count(tf.constant(bomb), SIDE) == 0
