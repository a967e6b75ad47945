"""Pictures, and files that pretend to be pictures, as bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

# Quarters: red, green / blue, grey.
QUARTERS = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [128, 128, 128]]], np.uint8
)


def quarters(side: int = 64) -> Image.Image:
    return Image.fromarray(QUARTERS.repeat(side // 2, 0).repeat(side // 2, 1))


def content_of(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of side x side RGBA pixels, all zeros: a thousandth of their size."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    squeeze = zlib.compressobj(9)
    row = bytes(1 + 4 * side)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">2I5B", side, side, 8, 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def hostile_files() -> dict[str, tuple[bytes, str]]:
    """By name: the content of a file, and what its error must say."""
    jpeg, png = (content_of(quarters(), kind) for kind in ("JPEG", "PNG"))
    vast = bytearray(png)
    vast[16:24] = struct.pack(">2I", 60_000, 60_000)
    vast[29:33] = struct.pack(">I", zlib.crc32(vast[12:29]))
    broad = bytearray(content_of(quarters(), "GIF"))
    broad[6:10] = b"\xff" * 4
    bitmap, script = content_of(quarters(), "BMP"), b"%!PS-Adobe-3.0 EPSF-3.0\n" * 30
    return {
        "empty.jpg": (b"", "an empty file"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "undamaged picture"),
        "truncated.png": (png[: len(png) // 2], "undamaged picture"),
        "a header only.png": (png[:33], "undamaged picture"),
        "a table.jpg": (b"path,label\n", "a file that begins with b'path,lab'"),
        "zeros.gif": (bytes(1000), "JPEG, PNG, WebP or GIF"),
        "half magic.webp": (b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(40), "expected"),
        "a bitmap.bmp": (bitmap, "Convert it"),
        "a program.png": (script, "Convert it"),  # for Ghostscript
        "sixty thousand.png": (bytes(vast), "received 60000 x 60000"),
        "frames beyond.gif": (bytes(broad), "received 65535 x 65535"),
        "a web page.jpg": (b"<!DOCTYPE html><html></html>", "begins with b'<!DOCTYP'"),
    }
