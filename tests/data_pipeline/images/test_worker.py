"""Tests that pictures decode as people see them, and other files are refused."""

import contextlib
import io
import os

import numpy as np
import pytest
from picture_files import QUARTERS, content_of, hostile_files, quarters
from PIL import Image, ImageOps

from leo_tf.data_pipeline.images.worker import (
    BadPicture,
    decoded,
    fitted,
    read_picture,
)


@pytest.fixture(autouse=True)
def no_limit_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


def corners(content: bytes) -> np.ndarray:
    """Returns [2, 2, 3], the middle pixel of each quarter."""
    pixels = np.frombuffer(decoded(content, 16), np.uint8).reshape(16, 16, 3)
    return pixels[4:13:8, 4:13:8].astype(int)


def in_grey(pixels: np.ndarray) -> np.ndarray:
    return pixels @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
    ],
)
def test_a_picture_of_each_format_has_its_colours(kind, options):
    found = corners(content_of(quarters(), kind, **options))
    np.testing.assert_allclose(found, QUARTERS, atol=8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_a_picture_of_each_kind_of_pixel_has_its_colours(mode):
    grey = np.repeat(in_grey(QUARTERS)[..., None], 3, axis=-1)
    image, wanted = quarters(), grey
    if mode == "1":
        image = image.convert("L").point(lambda value: 255 * (value > 100)).convert("1")
        wanted = 255 * (grey > 100)
    elif mode == "I;16":  # 12345 is 48 of 255, and not cut at 255
        values = np.array([[0, 12345], [40000, 65535]], np.uint16)
        image = Image.fromarray(values.repeat(32, 0).repeat(32, 1))
        assert image.mode == mode
        wanted = np.repeat(values[..., None] / 257.0, 3, axis=-1)
    else:
        image = image.convert(mode)
        wanted = grey if mode in ("L", "LA") else QUARTERS
    content = content_of(image, "JPEG" if mode == "CMYK" else "PNG")
    atol = 12 if mode == "CMYK" else 2
    np.testing.assert_allclose(corners(content), wanted, atol=atol)


@pytest.mark.parametrize("kind", ["RGBA", "P", "LA", "L"])
def test_what_is_transparent_is_white(kind):
    if kind == "L":  # one grey is transparent
        image, options = Image.new("L", (8, 8), 7), {"transparency": 7}
    elif kind == "P":
        image, options = Image.new("P", (8, 8), 0), {"transparency": 0}
    else:
        image, options = Image.new(kind, (8, 8), 0), {}
    assert (corners(content_of(image, "PNG", **options)) == 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_as_its_camera_was_held(turn):
    """Pillow's own way, on the whole picture, is the reference."""
    image = quarters()
    exif = Image.Exif()
    exif[0x0112] = turn
    content = content_of(image, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    wanted = np.asarray(upright.convert("RGB"))[16:49:32, 16:49:32]
    np.testing.assert_allclose(corners(content), wanted, atol=2)


def test_of_an_animation_the_first_frame_counts():
    other = Image.new("RGB", (64, 64), "white")
    options = {"save_all": True, "append_images": [other, other]}
    for kind in ("GIF", "WEBP", "PNG"):
        exact = {"lossless": True} if kind == "WEBP" else {}
        found = corners(content_of(quarters(), kind, **options, **exact))
        np.testing.assert_allclose(found, QUARTERS, atol=8)


def test_the_middle_square_is_kept():
    wide = Image.new("RGB", (192, 64), "black")
    wide.paste(quarters(), (64, 0))
    content = content_of(wide, "PNG")
    np.testing.assert_allclose(corners(content), QUARTERS, atol=2)
    tall = content_of(wide.transpose(Image.Transpose.ROTATE_90), "PNG")
    turned = np.rot90(QUARTERS)
    np.testing.assert_allclose(corners(tall), turned, atol=2)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (12, 9, 3), dtype=np.uint8))
    image = small.resize((900, 1200), Image.Resampling.BICUBIC)
    pixels = decoded(content_of(image, "JPEG", quality=95), 60)
    found = np.frombuffer(pixels, np.uint8).astype(int)
    whole = fitted(image, 60).tobytes()
    assert np.abs(found - np.frombuffer(whole, np.uint8)).mean() < 2


@pytest.mark.parametrize("name", hostile_files())
def test_a_file_that_is_no_picture_is_refused_in_words(name, tmp_path):
    content, said = hostile_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadPicture) as caught:
        read_picture(str(tmp_path), name, 8)
    expected, received, *hint = caught.value.args
    assert said in f"expected {expected}, received {received}. {' '.join(hint)}"


def test_the_suffix_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(content_of(quarters(), "PNG"))
    pixels, digest = read_picture(str(tmp_path), "a.jpg", 8)
    assert len(pixels) == 8 * 8 * 3 and len(digest) == 32


def test_what_is_no_file_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "folder"
    (folder / "cat").mkdir(parents=True)
    (tmp_path / "out.png").write_bytes(content_of(quarters(), "PNG"))
    (folder / "in.png").write_bytes(content_of(quarters(), "PNG"))
    (folder / "leads in.png").symlink_to("in.png")
    (folder / "leads out.png").symlink_to(tmp_path / "out.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.png").symlink_to("nothing.png")
    os.mkfifo(folder / "pipe.png")
    root = os.path.realpath(folder)
    read_picture(root, "leads in.png", 8)
    for item, said in {
        "leads out.png": "leads out of it",
        "device.png": "leads out of it",
        "../out.png": "leads out of it",
        "loop.png": "symbolic links",
        "dangling.png": "No such file",
        "pipe.png": "a pipe",
        "cat": "a directory",
        "a\0b.png": "null",
    }.items():
        with pytest.raises(BadPicture, match=said):
            read_picture(root, item, 8)


def test_damage_anywhere_is_a_picture_or_a_refusal():
    rng = np.random.default_rng(5)
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        content = content_of(quarters(), kind)
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(len(content), size=3):
                damaged[place] = rng.integers(256)
            with contextlib.suppress(BadPicture):
                assert len(decoded(bytes(damaged), 8)) == 8 * 8 * 3
