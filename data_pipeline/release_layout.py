"""Finds the splits of a data set, in the release's layout or in our own.

The command line imports this module, so it must not import NumPy, which is slow.
"""

import os
from collections.abc import Sequence

from leo_tf.configs.schema import EMBEDDED_DATASET, DataConfig
from leo_tf.errors import FlagError, InputError, quoted

SPLITS = ("train", "val", "test")
HOLD_OUT_HINT = "--val_classes=N moves N classes of train to val."
SHARE_HINT = "--class_split=0.64,0.16,0.2 divides its classes into train, val and test."
# Data set that the release reads if only `--data_path` is given.
_RELEASE_DATASET = "miniImageNet"
_NAMES_SHOWN = 5
_LAYOUTS = (
    "{dataset}/{crop}/{split}_embeddings.pkl",  # of the release
    "{dataset}/{crop}/{split}.npz",
    "{dataset}/{split}.npz",
    "{dataset}/{split}.tfrecord",
    "{dataset}.npz",
    *("{split}." + kind for kind in ("npz", "tfrecord")),
    *("{split}." + kind for kind in ("npy", "csv", "safetensors", "parquet")),
    "{crop}/{split}_embeddings.pkl",  # of the release, at the data set's own directory
    # The layouts of Hugging Face's hub and of `datasets`.
    *("{long}-00000-of-00001.parquet", "{long}/state.json", "state.json"),
)


def dataset_of(data: DataConfig) -> str:
    """Returns the default name of the data set in `data.data_path`."""
    stem, extension = os.path.splitext(os.path.basename(data.data_path))
    if extension.lower() == ".npz" or os.path.isfile(data.data_path):
        return stem
    # A published preset names its data set; the embedded one has no directory.
    embedded = data.dataset_name == EMBEDDED_DATASET
    name = _RELEASE_DATASET if embedded else data.dataset_name
    is_below = os.path.isdir(os.path.join(data.data_path, name))
    of_splits = [layout for layout in _LAYOUTS if "{dataset}" not in layout]
    names = [_named(layout, s, data) for layout in of_splits for s in ("train", "test")]
    splits = [os.path.join(data.data_path, name) for name in names]
    if not is_below and any(map(os.path.isfile, splits)):
        return os.path.basename(os.path.abspath(data.data_path))
    return name


def _named(layout: str, split: str, data: DataConfig) -> str:
    long = "validation" if split == "val" else split
    names = {"dataset": data.dataset_name, "crop": data.embedding_crop}
    return layout.format(split=split, long=long, **names)


def check_crop(data: DataConfig) -> None:
    """Refuses another crop than the default, which data without crops would ignore."""
    if data.embedding_crop != "center":
        hint = "Only the release's layout has crops."
        raise FlagError("--embedding_crop", "center", data.embedding_crop, hint)


def check_exists(path: str) -> None:
    """Raises an InputError if nothing exists at a path."""
    if not os.path.exists(path):
        raise InputError(path, "a directory or file of features", "nothing there")


def find_files(
    data: DataConfig, splits: Sequence[str] = SPLITS
) -> tuple[dict[str, str], bool]:
    """Returns the file of each split, and whether one file has all splits.

    Raises:
      InputError: if none of `_LAYOUTS` is there, or it lacks one of the splits.
      FlagError: if the layout that is there has no crops, and one is named.
    """
    path = data.data_path
    check_exists(path)
    if not os.path.isdir(path):
        check_crop(data)
        return dict.fromkeys(splits, path), True
    for layout in _LAYOUTS:
        files = {s: os.path.join(path, _named(layout, s, data)) for s in splits}
        missing = [file for file in files.values() if not os.path.exists(file)]
        if missing and len(missing) < len(splits):
            # Half a data set is a mistake, so no other layout is tried.
            hint = HOLD_OUT_HINT if missing == [files.get("val")] else ""
            expected = "a file, as for the other splits"
            raise InputError(missing[0], expected, "nothing there", hint)
        if not missing:
            if "{crop}" not in layout:
                check_crop(data)
            return files, not ("{split}" in layout or "{long}" in layout)
    tried = ", ".join(_named(layout, "SPLIT", data) for layout in _LAYOUTS)
    try:
        there = sorted(os.listdir(path))
    except OSError as error:
        expected = "a directory that can be read"
        raise InputError(path, expected, str(error.strerror)) from error
    few = ", ".join(map(quoted, there[:_NAMES_SHOWN]))
    few += f" and {len(there) - _NAMES_SHOWN} more" * (len(there) > _NAMES_SHOWN)
    hint = "See 'From what you have' in docs/data_formats.md."
    raise InputError(path, f"one of {tried}", few or "an empty directory", hint)
