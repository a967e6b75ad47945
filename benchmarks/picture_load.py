"""Sends pictures from several clients at once and checks the answers.

    python run_leo.py --mode=export --workdir=runs/mine --export_dir=exported
    python benchmarks/picture_load.py --export_dir=exported

Starts `--mode=serve` as `serving_load.py` does. Requests have one or two PNG or JPEG
files of several sizes; every tenth request has a damaged picture or another file.
Features must be those of the model in this process.
"""

import argparse
import base64
import io
import json
import sys

import numpy as np
from PIL import Image
from serving_load import Request, under_load

from leo_tf.serving.models import connect

_SIDES = (32, 128, 300, 640)
_WRONG_EVERY = 10
_SIGNATURE = "embed_images"


def files() -> list[bytes]:
    """Pictures as people have them: waves with noise, as PNG and JPEG."""
    rng, made = np.random.default_rng(0), []
    for side in _SIDES:
        y, x = np.mgrid[:side, : side + side // 3]
        for kind in ("PNG", "JPEG"):
            waves = 127 + 90 * np.sin(rng.uniform(3, 30) * (x + 2 * y) / side)
            waves = waves[..., np.newaxis] + rng.normal(0, 9, [*waves.shape, 3])
            file = io.BytesIO()
            Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)).save(file, kind)
            made.append(file.getvalue())
    return made


def requests(model, count: int) -> list[Request]:
    """`count` requests in the order they are handed out."""
    pictures = files()
    images = np.empty(len(pictures), object)
    images[:] = pictures
    features = model(_SIGNATURE, {"images": images})["features"]
    right = [
        Request(
            f"{sum(map(len, pictures[i : i + n])) >> 10} kB",
            _body(pictures[i : i + n]),
            features[i : i + n],
        )
        for i in range(len(pictures))
        for n in (1, 2)
        if i + n <= len(pictures)
    ]
    damaged = [pictures[0][:-40], b"a text file renamed .png", b"", pictures[1][:300]]
    wrong = [
        Request("wrong", _body([pictures[0], each]), None, "images") for each in damaged
    ]
    return [
        wrong[i // _WRONG_EVERY % len(wrong)]
        if i % _WRONG_EVERY == _WRONG_EVERY - 1
        else right[i % len(right)]
        for i in range(count)
    ]


def _body(contents: list[bytes]) -> bytes:
    images = [{"b64": base64.b64encode(each).decode()} for each in contents]
    inputs = {"images": images}
    return json.dumps({"signature_name": _SIGNATURE, "inputs": inputs}).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--export_dir", required=True, help="exported versions")
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    sent = requests(connect(args.export_dir), args.requests)
    return under_load(args.export_dir, sent, args.clients)


if __name__ == "__main__":
    sys.exit(main())
