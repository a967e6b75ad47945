"""Finds and loads the splits of a data set, in the release's layout or in our own."""

import os
import typing

from leo_tf.configs.schema import EMBEDDED_DATASET, DataConfig
from leo_tf.errors import InputError
from leo_tf.files import AnyPath

if typing.TYPE_CHECKING:
    from leo_tf.data_pipeline.embeddings import EmbeddingTable

SPLITS = ("train", "val", "test")
# The data set the release reads where only `--data_path` is given.
_RELEASE_DATASET = "miniImageNet"
_LAYOUTS = (
    "{dataset}/{crop}/{split}_embeddings.pkl",
    "{dataset}/{crop}/{split}.npz",
    "{dataset}/{split}.npz",
    "{dataset}/{split}.tfrecord",
    "{dataset}.npz",
    "{split}.npz",
    "{split}.tfrecord",
)


def dataset_of(data: DataConfig) -> str:
    """Returns the name of the data set in `data.data_path`, where nobody gives one."""
    stem, extension = os.path.splitext(os.path.basename(data.data_path))
    if extension.lower() == ".npz":
        return stem
    # A published preset names its own; the embedded one is not in a directory.
    embedded = data.dataset_name == EMBEDDED_DATASET
    name = _RELEASE_DATASET if embedded else data.dataset_name
    is_below = os.path.isdir(os.path.join(data.data_path, name))
    names = (f"{s}.{kind}" for s in ("train", "test") for kind in ("npz", "tfrecord"))
    splits = [os.path.join(data.data_path, name) for name in names]
    if not is_below and any(map(os.path.isfile, splits)):
        return os.path.basename(os.path.abspath(data.data_path))
    return name


def load_splits(
    data_path: AnyPath,
    dataset_name: str,
    embedding_crop: str,
    dtype: str = "float32",
    splits: tuple[str, ...] = SPLITS,
) -> dict[str, "EmbeddingTable"]:
    """Loads the splits of one data set, and refuses them if they share a class.

    Args:
      data_path: an .npz file of all splits, which needs neither name nor crop; or a
        directory with the first of these that is there:
        `DATASET/CROP/SPLIT_embeddings.pkl` (the release's layout),
        `DATASET/CROP/SPLIT.npz`, `DATASET/SPLIT.npz`, `DATASET/SPLIT.tfrecord`,
        `DATASET.npz` (of all splits), `SPLIT.npz`, `SPLIT.tfrecord`.
      dataset_name: DATASET, e.g. "miniImageNet".
      embedding_crop: CROP, "center" or "multiview" in the release.
      dtype: "float32" or "float64", to which the features are converted.
      splits: which to load.

    Returns:
      One table a split.

    Raises:
      InputError: if a file is missing or not what it should be; if splits share a
        class or differ in embedding size.
    """
    # NumPy takes a tenth of a second, and the command line wants but `dataset_of`.
    from leo_tf.data_pipeline.embeddings import check_splits
    from leo_tf.data_pipeline.feature_files import load

    data_path = os.fspath(data_path)
    if not os.path.exists(data_path):
        raise InputError(data_path, "a directory of features or an .npz file", "none")
    if os.path.isdir(data_path):
        names = {"dataset": dataset_name, "crop": embedding_crop}
        files, one_file = _find_files(data_path, names, splits)
    else:
        files, one_file = dict.fromkeys(splits, data_path), True
    tables = {
        split: load(files[split], split=split if one_file else None, dtype=dtype)
        for split in splits
    }
    check_splits(list(tables.values()))
    return tables


def _find_files(
    directory: str, names: dict[str, str], splits: tuple[str, ...]
) -> tuple[dict[str, str], bool]:
    """The file of each split, and whether one file holds them all."""
    for layout in _LAYOUTS:
        files = {
            split: os.path.join(directory, layout.format(split=split, **names))
            for split in splits
        }
        missing = [file for file in files.values() if not os.path.exists(file)]
        if missing and len(missing) == len(splits):
            continue
        if missing:
            # Half a data set is a mistake, not a reason to look for another one.
            raise InputError(missing[0], "a file, as for the other splits", "none")
        return files, "{split}" not in layout
    tried = ", ".join(layout.format(split="SPLIT", **names) for layout in _LAYOUTS)
    raise InputError(directory, f"one of {tried}", "none of them")
