"""Reads event files with TensorBoard's own reader."""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray


def read(directory: pathlib.Path) -> dict[str, dict[int, np.ndarray]]:
    """tag -> step -> value, of every event file in a directory."""
    guidance = {"tensors": 0, "scalars": 0}
    events = EventAccumulator(str(directory), size_guidance=guidance)
    events.Reload()
    scalars = {
        tag: {event.step: np.float32(event.value) for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
    return scalars | {
        tag: {
            event.step: make_ndarray(event.tensor_proto)
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


def under(events, group: str) -> set[str]:
    """Returns the tags of a group, without the group."""
    return {
        tag.removeprefix(f"{group}/") for tag in events if tag.startswith(f"{group}/")
    }


def picture(value: np.ndarray) -> np.ndarray:
    """[H, W, 3] of an image event: width, height, PNG."""
    with Image.open(io.BytesIO(value[2])) as image:
        assert image.size == (int(value[0]), int(value[1]))
        return np.asarray(image.convert("RGB"))


def hyperparameter_events(directory):
    """Tag -> what the hyperparameters' plugin wrote."""
    found = {}
    for path in sorted(directory.glob("events.out*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    content = value.metadata.plugin_data.content
                    found[value.tag] = plugin_data_pb2.HParamsPluginData.FromString(
                        content
                    )
    return found
