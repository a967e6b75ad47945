"""Reads event files with TensorBoard's own reader."""

import io
import pathlib

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


def read(directory: pathlib.Path) -> dict[str, dict[int, np.ndarray]]:
    """tag -> step -> value, of every event file in a directory."""
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: {
            event.step: make_ndarray(event.tensor_proto)
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


def under(events, group: str) -> set[str]:
    """What follows a group in the tags of it."""
    return {
        tag.removeprefix(f"{group}/") for tag in events if tag.startswith(f"{group}/")
    }


def picture(value: np.ndarray) -> np.ndarray:
    """[H, W, 3] of an image event: width, height, PNG."""
    with Image.open(io.BytesIO(value[2])) as image:
        assert image.size == (int(value[0]), int(value[1]))
        return np.asarray(image.convert("RGB"))
