"""Feeds the readers of data files what nobody would write, looking for other errors.

    python tests/fuzz/fuzz_readers.py --seconds=120 [--reader=pickle] [--engine=mutator]

With atheris installed (`pip install atheris`) libFuzzer leads, by the code it reaches;
without, a mutator of our own, by chance. The first input that is neither read nor
refused by InputError is written beside, and the exit status is 1. TensorFlow's own
reader is given records with right checksums and examples that are wrong.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import pathlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "hostile"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tools"))

import hostile_files
import hostile_pickles

try:
    import atheris
except ImportError:  # then our own engine, which wants nothing of the code
    atheris = None

# Whose branches lead libFuzzer: our code; it would take minutes to prepare NumPy's.
_LED_BY = ["configs", "data_pipeline"]
with atheris.instrument_imports(_LED_BY) if atheris else contextlib.nullcontext():
    from leo_tf.configs.schema import Config
    from leo_tf.data_pipeline.feature_files import load
    from leo_tf.data_pipeline.formats.tfrecord_framing import scan
    from leo_tf.data_pipeline.release_pickle import reader as release_pickle
    from leo_tf.errors import InputError

_LONGEST = 4096
_SPLICES = [bytes([byte]) for byte in range(256)] + [
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", bytes(8), b"PK\x01\x02",
    b"cnumpy\nndarray\n", b"cbuiltins\neval\n", b"\x93NUMPY\x01\0", b"'|O'", b"1e999",
]  # fmt: skip


class Readers:
    """The readers, each a function of the bytes of a file.

    Args:
      directory: for the file of those that want a path.
    """

    def __init__(self, directory: pathlib.Path):
        self._path = directory / "file"
        self.outcomes = collections.Counter()

    def file(self, data: bytes) -> None:
        """Any data file, told by its content."""
        self._path.write_bytes(data)
        load(self._path)

    def pickle(self, data: bytes) -> None:
        """The release's pickles, without a file."""
        release_pickle.loads(data)

    def lengths(self, data: bytes) -> None:
        """The lengths of a TFRecord file."""
        scan(io.BytesIO(data), "lengths")

    def example(self, data: bytes) -> None:
        """A row of a TFRecord file, parsed by TensorFlow; slow."""
        self._path.write_bytes(hostile_files.record(data) * 2)
        load(self._path)

    def config(self, data: bytes) -> None:
        """config.json."""
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError("config", "JSON", "no JSON") from None
        Config.from_dict(values)

    def run(self, reader: str, data: bytes) -> None:
        """Reads; anything but InputError gets out."""
        try:
            getattr(self, reader)(data)
            self.outcomes["read"] += 1
        except InputError as error:
            self.outcomes["refused"] += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                raise AssertionError(f"an unfit message: {error!r}") from error


def seeds(reader: str) -> list[bytes]:
    """Files to begin with: good ones, and the corpus of the tests."""
    if reader == "config":
        return [json.dumps(Config().to_dict()).encode(), b'{"run": {"seed": 1}}']
    if reader == "example":
        features = {"class": hostile_files.texts(b"a")}
        features["embedding"] = hostile_files.floats(1.0, 2.0)
        return [hostile_files.example(**features)]
    files = list(hostile_files.good_files().values())
    files += hostile_pickles.attacks("canary").values()
    files += hostile_pickles.BUILT_TWICE.values()
    return files + list(hostile_files.zip_bombs(64).values())


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A copy with one to eight changes of any kind."""
    data = bytearray(data[:_LONGEST])
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        place, end = sorted(rng.choices(range(len(data) + 1), k=2))
        kind = rng.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place:place] = rng.choice(_SPLICES)
        elif kind == 2:
            del data[place : min(end, place + rng.choice((1, 4, 64)))]
        elif kind == 3:
            data[place:place] = data[place : min(end, place + 64)]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[place : place + 8] = other[start : start + rng.choice((4, 16, 64))]
    return bytes(data[:_LONGEST])


def fuzz_by_chance(run: Callable, corpus: list[bytes], seconds: float, seed: int):
    """Our own engine."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    for data in corpus:
        run(data)
    while time.monotonic() < end:
        run(mutated(rng.choice(corpus), corpus, rng))


def fuzz_by_coverage(run: Callable, corpus: list[bytes], seconds: float, seed: int):
    """libFuzzer; it ends the process itself."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="corpus-"))
    for data in corpus:
        run(data)  # the first record has TensorFlow loaded, which takes too long later
        (directory / hashlib.sha256(data).hexdigest()).write_bytes(data)
    limits = [f"-max_total_time={seconds:.0f}", f"-max_len={_LONGEST}", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], *limits, "-timeout=10", str(directory)], run)
    atheris.Fuzz()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["file", "pickle", "lengths", "example", "config"]
    parser.add_argument("--reader", choices=names, default="file")
    parser.add_argument("--engine", choices=["auto", "mutator"], default="auto")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        readers = Readers(pathlib.Path(directory))

        def run(data: bytes):
            try:
                readers.run(options.reader, data)
            except BaseException:
                traceback.print_exc()
                name = f"fuzz-{hashlib.sha256(data).hexdigest()[:16]}"
                pathlib.Path(name).write_bytes(data)
                print(f"neither read nor refused: {name}", file=sys.stderr)
                raise

        by_chance = options.engine == "mutator" or not atheris
        engine = fuzz_by_chance if by_chance else fuzz_by_coverage
        try:
            engine(run, seeds(options.reader), options.seconds, options.seed)
        except Exception:
            return 1
        finally:
            counts = ", ".join(f"{n} {k}" for k, n in readers.outcomes.items())
            print(f"{options.reader}, {engine.__name__}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
