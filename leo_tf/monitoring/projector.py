"""Latent codes for TensorBoard's embedding projector.

Shapes: P points, Z latent size, h x w pixels of a picture.
"""

import io
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf import text_format
from PIL import Image

from leo_tf.files import write_file

_TENSORS, _METADATA = "latent_codes.tsv", "latent_codes_labels.tsv"
_SPRITE, _CONFIG = "latent_codes_sprite.png", "projector_config.pbtxt"
_SPRITE_SIDE = 32


def write_projector(
    directory: pathlib.Path,
    codes: np.ndarray,
    labels: Mapping[str, Sequence],
    pictures: np.ndarray | None = None,
) -> None:
    """Writes what the projector reads, each file whole, the one that names them last.

    Args:
      codes: [P, Z].
      labels: column -> P labels.
      pictures: [P, h, w] uint8, one for each point, if there are any.

    Raises:
      DiskError: if that fails.
      ImportError: if TensorBoard is not installed.
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    write_file(directory / _TENSORS, lambda f: np.savetxt(f, codes, "%.5g", "\t"))
    table = [list(labels), *zip(*labels.values(), strict=True)]
    rows = ("\t".join(_one_line(value) for value in row) for row in table)
    write_file(directory / _METADATA, "\n".join(rows).encode())
    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="latent codes",
        tensor_path=_TENSORS,
        tensor_shape=codes.shape,
        metadata_path=_METADATA,
    )
    if pictures is not None:
        path = directory / _SPRITE
        if not path.exists():  # points stand for the same examples throughout a run
            write_file(path, sprite(pictures))
        embedding.sprite.image_path = _SPRITE
        embedding.sprite.single_image_dim.extend([_SPRITE_SIDE, _SPRITE_SIDE])
    write_file(directory / _CONFIG, text_format.MessageToString(config).encode())


def sprite(pictures: np.ndarray) -> bytes:
    """PNG of pictures [P, h, w] in a square, row by row: as the projector wants it."""
    across = math.ceil(math.sqrt(len(pictures)))
    sheet = Image.new("L", (across * _SPRITE_SIDE, across * _SPRITE_SIDE), "white")
    for i, picture in enumerate(pictures):
        small = Image.fromarray(255 - picture).resize((_SPRITE_SIDE, _SPRITE_SIDE))
        sheet.paste(small, (i % across * _SPRITE_SIDE, i // across * _SPRITE_SIDE))
    file = io.BytesIO()
    sheet.save(file, format="png")
    return file.getvalue()


def _one_line(value) -> str:
    return " ".join(str(value).split()) or "-"
