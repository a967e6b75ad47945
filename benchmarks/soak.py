"""Trains 20,000 small steps and watches the process's memory and open files.

    python benchmarks/soak.py

Prints a table, a row every 2,000 steps; exits with 1 if memory or the number of open
files grew from step 2,000 on by more than they waver.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

_STEPS, _EVERY = 20_000, 2_000
# What memory may waver by: pieces that the allocator keeps, or gives back.
_WAVERS_BY_MIB = 16
_CLASSES = {"train": 12, "val": 6, "test": 6}
_ROWS, _SIZE = 20, 16
_FLAGS = (
    "--way=3",
    "--num_query=4",
    "--meta_batch_size=2",
    "--num_latents=8",
    "--inner_unroll_length=2",
    "--finetuning_unroll_length=2",
    "--num_val_episodes=20",
    "--num_test_episodes=20",
    "--validate_every=200",
    "--log_every=50",
    f"--num_steps={_STEPS}",
    "--quiet",
)


class Sample(NamedTuple):
    """Memory and open files of a process after `step` steps."""

    step: int
    resident_mib: float
    open_files: int
    threads: int


def write_data(directory: pathlib.Path) -> None:
    """Writes noisy clusters as the three splits of a data set."""
    random = np.random.default_rng(0)
    for split, classes in _CLASSES.items():
        labels = np.repeat([f"{split} {i}" for i in range(classes)], _ROWS)
        centres = np.repeat(random.normal(size=[classes, _SIZE]), _ROWS, axis=0)
        embeddings = np.float32(centres + random.normal(size=centres.shape))
        np.savez(directory / f"{split}.npz", embeddings=embeddings, labels=labels)


def sample(process: subprocess.Popen, step: int) -> Sample:
    """Reads /proc: Linux only."""
    directory = pathlib.Path("/proc", str(process.pid))
    lines = (directory / "status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    resident = int(values["VmRSS"].split()[0]) / 1024
    files = len(list((directory / "fd").iterdir()))
    return Sample(step, resident, files, int(values["Threads"]))


def watch(process: subprocess.Popen, workdir: pathlib.Path) -> list[Sample]:
    """A sample at every `_EVERY` steps, told by the checkpoints, until it ends."""
    samples, due = [], _EVERY
    while process.poll() is None:
        if (workdir / "checkpoints" / f"step-{due:08d}").exists():
            samples.append(sample(process, due))
            row = samples[-1]
            print(
                f"{row.step:>7,} {row.resident_mib:>10.1f} {row.open_files:>6} "
                f"{row.threads:>8}",
                flush=True,
            )
            due += _EVERY
        time.sleep(0.02)
    return samples


def is_flat(samples: list[Sample]) -> bool:
    """Tells whether nothing grew from the first sample on."""
    first, later = samples[0], samples[1:]
    memory = max(each.resident_mib for each in later) - first.resident_mib
    files = max(each.open_files for each in later) - first.open_files
    threads = max(each.threads for each in later) - first.threads
    return memory <= _WAVERS_BY_MIB and files <= 0 and threads <= 0


def main() -> int:
    print(f"{'step':>7} {'memory MiB':>10} {'files':>6} {'threads':>8}")
    root = pathlib.Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as directory:
        data, workdir = pathlib.Path(directory), pathlib.Path(directory, "run")
        write_data(data)
        flags = [*_FLAGS, f"--data_path={data}", f"--workdir={workdir}"]
        start = time.monotonic()
        command = [sys.executable, root / "run_leo.py", *flags]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            samples = watch(process, workdir)
        seconds = time.monotonic() - start
    print(f"{seconds:.0f} seconds, exit status {process.returncode}")
    whole = process.returncode == 0 and len(samples) >= _STEPS // _EVERY - 1
    return 0 if whole and is_flat(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
