"""Decodes the pictures that a backbone is trained on into one file.

Shapes: n pictures, H pixels a side.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from leo_tf.console import Console
from leo_tf.data_pipeline.formats.npy import write_rows
from leo_tf.data_pipeline.images.decoding import decode, say_bad
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.errors import InputError

PIXELS_FILE = "pictures.npy"


def decoded(
    pictures: Pictures,
    chosen: np.ndarray,
    side: int,
    directory: pathlib.Path,
    skip_bad: bool,
    console: Console,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [n, H, H, 3] mapped from a file, and labels [n] from 0.

    Each picture is decoded once. All epochs read the file.
    """
    path, shape = directory / PIXELS_FILE, (len(chosen), side, side, 3)
    bad: list[InputError] = []
    kept: list[int] = []
    options: Any = {
        "indices": chosen,
        "bad": bad if skip_bad else None,
        "batch_size": 64,
    }

    def batches() -> Iterator[np.ndarray]:
        for indices, batch, _ in decode(pictures, side, **options):
            yield batch
            kept.extend(indices)
            line.advance(len(batch))

    with console.progress("reading pictures", len(chosen), unit="pictures") as line:
        write_rows(path, np.uint8, shape, batches(), lasts=False)
    say_bad(bad, len(chosen), console)
    if not kept:
        where = f"{pictures.source}: train"
        raise InputError(where, "pictures that can be read", "none")
    classes = np.unique(pictures.labels[kept])
    labels = np.searchsorted(classes, pictures.labels[kept])
    return np.load(path, mmap_mode="r"), labels
