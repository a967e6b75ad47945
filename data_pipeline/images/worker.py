"""Decodes, turns, crops and resizes one picture, from an untrusted file.

`decoding` runs this file as a program in a process of its own, so a picture that breaks
Pillow's decoders, or takes too much memory or time, ends that process only. Nothing of
this package is imported here, and no NumPy, so that a process starts in a tenth of a
second.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import resource
import signal
import stat
import struct
import sys
import warnings
from typing import Any, BinaryIO

# Imported by name, so that no others load. Each registers itself.
from PIL import (
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

# Part of what pixels depend on. Raise it if decoding changes.
VERSION = 2
# Pillow tries these decoders only. One of the others starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8")
# Pixels after decoding; a JPEG may be decoded at an eighth of its sides.
_MOST_PIXELS = 1 << 26
_MOST_BYTES = 1 << 28  # of a file, which is read completely for its digest
# A picture is at least this many times larger before resizing than after.
_GAP = 3.0
_ORIENTATION = 0x0112  # EXIF's tag; below, the inverse of each of its values
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Background of transparent pictures.
_PAPER = "white"
_AGAIN = "The program that wrote or copied it did not finish: run it again."
_CONVERT = "Convert it: an image program, or Pillow's Image.open(a).convert('RGB')."
# Header of an answer: True for a good picture, and the number of bytes that follow.
ANSWER = struct.Struct("<?I")
READY = b"\n"


class BadPicture(ValueError):
    """Expected, received and hint for a file that is not a good picture."""


def read_picture(root: str, item: str, size: int) -> tuple[bytes, bytes]:
    """Returns the pixels of a file, and the SHA-256 of its content.

    Args:
      root: the folder that it must lie in, without links, or empty for anywhere.
      item: its path below `root`.
      size: S, a side of the result in pixels.

    Returns:
      S * S * 3 bytes, row by row, each pixel red, green, blue; 32 bytes.

    Raises:
      BadPicture: if it cannot be read.
    """
    try:
        content = _content(root, os.path.join(root, item))
        return decoded(content, size), hashlib.sha256(content).digest()
    except MemoryError:
        received = "one that needs more"
        raise BadPicture("a picture that fits the memory", received) from None


def decoded(content: bytes, size: int) -> bytes:
    """Returns the pixels of the content of a file; see `read_picture`."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # No cost for other formats. The size to decode is known only afterwards.
            image.draft(None, (int(_GAP * size), int(_GAP * size)))
            if image.width * image.height > _MOST_PIXELS:
                received = f"{image.width} x {image.height}"
                hint = "Make it smaller; it is resized in any case."
                raise BadPicture(f"at most {_MOST_PIXELS:,} pixels", received, hint)
            image.load()
            return fitted(image, size).tobytes()
    except (BadPicture, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        if content.startswith(_MAGICS):
            received = "one with a damaged beginning"
            raise BadPicture("an undamaged picture", received, _AGAIN) from None
        expected = "a picture in JPEG, PNG, WebP or GIF"
        received = f"a file that begins with {content[:8]!a}"
        raise BadPicture(expected, received, _CONVERT) from None
    except Exception as error:  # damage may raise anything in Pillow
        received = f"{type(error).__name__}: {error}"
        raise BadPicture("an undamaged picture", received) from None


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Returns S x S pixels of RGB: the picture's middle, as a person would see it.

    The first frame is kept and rotated by its EXIF orientation. Transparent parts are
    white; 16-bit values keep their upper 8 bits. Colour profiles are ignored.

    Args:
      image: a loaded picture of any kind and size.
      size: S.
    """
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    image = _in_colour(image)
    width, height = image.size
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    image = _resized(image, size, (x, y, width - x, height - y))
    if image.mode == "RGBA":
        paper = Image.new("RGBA", image.size, _PAPER)
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    # Turned last, when it is small. The middle stays the middle.
    return image if turn is None else image.transpose(turn)


def _resized(
    image: Image.Image, size: int, box: tuple[float, float, float, float]
) -> Image.Image:
    """Returns part of a picture as S x S pixels, like `Image.resize` does.

    It resizes rows first, then columns. Some versions of Pillow choose the order by the
    picture's shape, and round differently then. `resizing.py` does the same.
    """
    if image.size == (size, size) and box == (0, 0, size, size):
        return image
    see_through = image.mode == "RGBA"
    image = image.convert("RGBa") if see_through else image
    pitches = (box[2] - box[0]) / size, (box[3] - box[1]) / size
    across, down = (max(1, int(pitch / _GAP)) for pitch in pitches)
    x, y = (max(0, int(box[i] - pitches[i] / 2)) for i in (0, 1))
    x_end, y_end = (
        min(image.size[i], math.ceil(box[i + 2] + pitches[i] / 2)) for i in (0, 1)
    )
    image = image.reduce((across, down), (x, y, x_end, y_end))
    left, right = ((box[i] - x) / across for i in (0, 2))
    top, bottom = ((box[i] - y) / down for i in (1, 3))
    bilinear, height = Image.Resampling.BILINEAR, image.height
    image = image.resize((size, height), bilinear, (left, 0, right, height))
    image = image.resize((size, size), bilinear, (0, top, size, bottom))
    return image.convert("RGBA") if see_through else image


def _in_colour(image: Image.Image) -> Image.Image:
    """Returns the picture in L, RGB or RGBA, which can be resized."""
    if image.mode in ("L", "RGB", "RGBA"):
        if "transparency" not in image.info:
            return image
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut at 255
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    see_through = image.mode in ("LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if see_through else "RGB")


def _content(root: str, path: str) -> bytes:
    try:
        if root and os.path.commonpath([root, os.path.realpath(path)]) != root:
            hint = "Copy the file it links to, or give a folder that holds both."
            raise BadPicture(f"a file in {root}", "a link that leads out of it", hint)
        # Tested before opening: opening a pipe without a writer never returns.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadPicture("a picture", "a directory, or a link to one")
        if not stat.S_ISREG(status.st_mode):
            raise BadPicture("a picture", "a device, a pipe or a socket")
        if not status.st_size:
            raise BadPicture("a picture", "an empty file", _AGAIN)
        if status.st_size > _MOST_BYTES:
            received = f"{status.st_size} bytes"
            raise BadPicture(f"at most {_MOST_BYTES} bytes", received)
        with open(path, "rb") as file:
            return file.read(status.st_size)
    except OSError as error:
        raise BadPicture("a readable file", str(error.strerror)) from None
    except ValueError as error:  # a NUL in the path
        if isinstance(error, BadPicture):
            raise
        raise BadPicture("a path", str(error)) from None


def limit(most_bytes: int) -> None:
    """Limits the memory this process may add, and forbids core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # macOS has no such limit
        with open("/proc/self/statm") as file:
            most_bytes += int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers lines of JSON, each [root, items, size, seconds], until the end.

    There is one answer per item: `ANSWER`, then digest and pixels, or JSON of a
    `BadPicture`.
    """
    answers.write(READY)
    answers.flush()
    for line in iter(requests.readline, b""):
        root, items, size, seconds = json.loads(line)
        for item in items:
            # Its signal ends the process anywhere, because there is no Python handler.
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                pixels, digest = read_picture(root, item, size)
                is_good, said = True, digest + pixels
            except BadPicture as error:
                is_good, said = False, json.dumps(error.args).encode()
            signal.setitimer(signal.ITIMER_REAL, 0)
            answers.write(ANSWER.pack(is_good, len(said)) + said)
            answers.flush()


def main(arguments: list[Any]) -> None:
    """Runs the worker. `arguments` is [bytes of memory that it may add]."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    warnings.simplefilter("ignore")  # of decoders, about odd pictures
    Image.MAX_IMAGE_PIXELS = None  # limited above, after the draft
    limit(int(arguments[0]))
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main(sys.argv[1:])
