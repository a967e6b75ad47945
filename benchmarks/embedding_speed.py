"""Measures speed and memory of embedding pictures, beside Keras alone.

    python benchmarks/embedding_speed.py

Pictures a second of `--mode=embed` (decoding in processes of its own, digests and files
included) and of what Keras offers for the same: `image_dataset_from_directory` and
`predict`. Same JPEG files, same network, in turn, each in a process of its own, with
TensorFlow warm; the time includes loading the network. Then the most memory of
`--mode=embed`, its decoders included, for more and more pictures.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.in_turn import spread

_BATCH = 64
_DISTINCT = 500  # pictures; more are other names of these
_POLL_SECONDS = 0.2


def write_pictures(root: pathlib.Path, count: int, side: int) -> None:
    """Writes `count` JPEG files of side x side pixels, in 100 folders."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        path = root / f"class{number % 100:02}" / f"{number // 100:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= _DISTINCT:
            first = number % _DISTINCT
            os.link(root / f"class{first % 100:02}" / f"{first // 100:05}.jpg", path)
            continue
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def ours(root: str, backbone: str) -> int:
    """Embeds; returns how many pictures."""
    from leo_tf.configs.settings import DataConfig
    from leo_tf.experiments.embed import embed

    data = DataConfig(class_split="0.6,0.2,0.2")
    with tempfile.TemporaryDirectory() as out:
        metadata = embed(
            root, f"{out}/features", data=data, backbone=backbone, views="whole"
        ).metadata
    return sum(size["rows"] for size in metadata["sizes"].values())


def keras_alone(root: str, backbone: str) -> int:
    import keras

    model = keras.models.load_model(backbone, compile=False)
    side = model.input_shape[1]
    batches = keras.utils.image_dataset_from_directory(
        root, labels=None, shuffle=False, batch_size=_BATCH, image_size=(side, side)
    )
    return len(model.predict(batches.prefetch(2), verbose=0))


def write_backbone(path: pathlib.Path, depth: int, width: int, side: int) -> None:
    from leo_tf.embedding.wide_resnet import features_of, wide_resnet

    features_of(wide_resnet(depth, width, side, 10)).save(path)


def measure(job: str, root: str, backbone: str) -> None:
    """Prints pictures a second, loading the network included, TensorFlow warm."""
    import keras
    import numpy as np

    model = keras.models.load_model(backbone, compile=False)
    model.predict(np.zeros((_BATCH, *model.input_shape[1:]), "f4"), verbose=0)
    began = time.perf_counter()
    count = {"ours": ours, "keras": keras_alone}[job](root, backbone)
    print(json.dumps(count / (time.perf_counter() - began)))


def run(job: str, root: pathlib.Path, backbone: pathlib.Path) -> tuple[float, float]:
    """Returns pictures a second, and the most MiB of the process and its own."""
    import psutil

    command = [sys.executable, __file__, f"--job={job}", f"--root={root}"]
    command.append(f"--backbone={backbone}")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most, process = 0, psutil.Process(child.pid)
    while child.poll() is None:
        resident = 0
        try:
            for each in (process, *process.children(recursive=True)):
                resident += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        most = max(most, resident)
        time.sleep(_POLL_SECONDS)
    printed = child.stdout.read().splitlines()  # Keras says how many it found
    return json.loads(printed[-1]), most / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--side", type=int, default=64, help="of the JPEG files")
    parser.add_argument("--network", default="10,2,32", help="depth, width and side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory_of", default="1000,10000,50000")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--backbone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        measure(args.job, args.root, args.backbone)
        return
    console = Console()
    with tempfile.TemporaryDirectory() as place:
        backbone = pathlib.Path(place, "backbone.keras")
        write_backbone(backbone, *map(int, args.network.split(",")))
        root = pathlib.Path(place, "pictures")
        write_pictures(root, args.pictures, args.side)
        rates: dict[str, list[float]] = {"ours": [], "keras": []}
        for _ in range(args.rounds):
            for job, found in rates.items():
                found.append(run(job, root, backbone)[0])
        table = Table("", "pictures a second", "of Keras alone", box=box.SIMPLE)
        for job, found in rates.items():
            ratios = [a / b for a, b in zip(found, rates["keras"])]
            table.add_row(job, spread(found, 0), spread(ratios, 2))
        console.print(table)
        table = Table("pictures", "most memory, MiB", box=box.SIMPLE)
        for count in map(int, args.memory_of.split(",")):
            root = pathlib.Path(place, f"pictures{count}")
            write_pictures(root, count, args.side)
            table.add_row(str(count), f"{run('ours', root, backbone)[1]:.0f}")
        console.print(table)


if __name__ == "__main__":
    main()
