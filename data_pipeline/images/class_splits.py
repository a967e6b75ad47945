"""Divides the classes of pictures into splits, by folders or by settings."""

import dataclasses

from leo_tf.configs.settings import DataConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.images.pictures import Pictures, find_pictures
from leo_tf.data_pipeline.sources import check_alone
from leo_tf.data_pipeline.splits import split_classes
from leo_tf.errors import FlagError
from leo_tf.files import AnyPath

CLASS_SPLIT = "0.64,0.16,0.2"  # miniImageNet's: 64, 16 and 20 classes of 100
ALL = "all"  # stands for the splits if classes are divided later


def unsplit_pictures(images: AnyPath, data: DataConfig, console: Console) -> Pictures:
    """Finds pictures whose classes are to be divided into folds."""
    pictures = find_pictures(images, console)
    _check_unsplit(pictures, data)
    return pictures._replace(splits=(ALL,) * len(pictures.class_names))


def split_pictures(
    images: AnyPath | Pictures,
    data: DataConfig | None = None,
    console: Console = SILENT,
) -> Pictures:
    """Finds pictures and splits their classes by folders or by `data`.

    What it returned may be given to it again, and stays as it is.

    Raises:
      LeoError: if there are no pictures, or both define splits.
    """
    if isinstance(images, Pictures):
        return images
    pictures = find_pictures(images, console)
    data = _with_split(pictures, data or DataConfig(), console)
    if pictures.splits is not None:
        return pictures
    return pictures._replace(splits=split_classes(pictures.class_names, data, console))


def _with_split(pictures: Pictures, data: DataConfig, console: Console) -> DataConfig:
    """Returns `data`, with a split of the classes if nothing else defines one.

    Raises:
      FlagError: if both folders and `data` define one.
    """
    is_defined = pictures.splits is not None or data.shares_classes
    if not is_defined:
        data = dataclasses.replace(data, class_split=CLASS_SPLIT)
    _check_unsplit(pictures, data)
    if not is_defined:
        console.say(f"No folders train, val and test: --class_split={CLASS_SPLIT}.")
    return data


def _check_unsplit(pictures: Pictures, data: DataConfig) -> None:
    """Refuses settings that divide classes if folders define the splits.

    Also refuses a fold without a number of folds.
    """
    check_alone(data)
    if pictures.splits is not None and data.shares_classes:
        flag = "--class_split" if data.class_split else "--class_folds"
        expected = "none, because its folders define the splits"
        raise FlagError(flag, expected, data.class_split or str(data.class_folds))
