"""Measures training on a table that is too large to load.

    python benchmarks/large_tables.py --directory=/big --classes=4800 --jobs=1
    python benchmarks/large_tables.py --directory=/big --classes=4800 --jobs=4

The first call writes the table: classes of 1,000 rows of 640 numbers, 2.56 MB each.
Every row of the output is one command, started `jobs` times at once: seconds until it
trains, the steps a second of all, and the most memory of a process, MiB: anonymous, and
of files, which processes share. The first start checks the table. `--drop_caches`, as
root, empties the system's cache of files before each start; the commands themselves are
read again before the clock starts.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np

_ROWS, _SIZE = 1000, 640
_ROOT = pathlib.Path(__file__).parents[1]


def write_split(directory: pathlib.Path, split: str, first: int, classes: int):
    """Writes classes from the number `first` on, each with a centre of its own."""
    path = directory / f"{split}.npy"
    if path.exists():
        return
    noise = np.random.default_rng(0).normal(size=(_ROWS, _SIZE)).astype("f4")
    shape = classes * _ROWS, _SIZE
    rows = np.lib.format.open_memmap(path, "w+", "f4", shape)
    for c in range(classes):
        centre = np.random.default_rng(1 + first + c).normal(size=_SIZE) / 2
        mine = np.roll(noise, 37 * c, axis=1) + centre.astype("f4")
        rows[c * _ROWS : (c + 1) * _ROWS] = mine
    labels = first + np.repeat(np.arange(classes), _ROWS)
    np.save(directory / f"{split}_labels.npy", labels)


def measure(directory: pathlib.Path, jobs: int, steps: int) -> tuple[float, ...]:
    """Returns seconds until all train, steps a second, and the most memory, MiB."""
    begun, runs, trains = time.time(), [], {}
    for job in range(jobs):
        shutil.rmtree(directory / f"run{job}", ignore_errors=True)
        command = [
            *(sys.executable, "run_leo.py", f"--data_path={directory}"),
            *("--dataset_name=big", f"--workdir={directory / f'run{job}'}"),
            *(f"--num_steps={steps}", "--num_val_episodes=200"),
            "--num_test_episodes=200",
        ]
        out = (directory / f"log{job}").open("w")
        environment = {**os.environ, "LEO_TF_CACHE": str(directory / "cache")}
        options = {"cwd": _ROOT, "env": environment, "stderr": subprocess.STDOUT}
        runs.append(subprocess.Popen(command, stdout=out, **options))
    done, most = {}, [0, 0]
    while len(done) < jobs:
        time.sleep(0.1)
        for job, run in enumerate(runs):
            if job not in done and run.poll() is not None:
                sys.exit(f"{directory / f'log{job}'}: it failed")
            log = (directory / f"log{job}").read_text()
            if "Nearest centroid on" in log:
                trains.setdefault(job, time.time())
            if f"step {steps}: validation" in log:
                done.setdefault(job, time.time())
            status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
            for i, name in enumerate(("RssAnon", "RssFile")):
                found = re.search(rf"{name}:\s+(\d+)", status)
                most[i] = max(most[i], int(found[1]) >> 10 if found else 0)
    for run in runs:
        run.wait()
    seconds = [done[job] - trains[job] for job in trains]
    return max(trains.values()) - begun, jobs * steps / np.mean(seconds), *most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=pathlib.Path, required=True)
    parser.add_argument("--classes", type=int, default=4800)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drop_caches", action="store_true")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    for split, first, classes in (
        *(("train", 0, given.classes), ("val", given.classes, 100)),
        ("test", given.classes + 100, 100),
    ):
        write_split(given.directory, split, first, classes)
    print("start    until it trains, s    steps/s    RssAnon    RssFile")
    for round_ in range(given.rounds):
        if given.drop_caches:
            os.sync()
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
            command = [sys.executable, "-c", "import leo_tf.training.trainer"]
            subprocess.run(command, cwd=_ROOT, capture_output=True)
        seconds, speed, *memory = measure(given.directory, given.jobs, given.steps)
        anon, file = memory
        print(f"{round_ + 1:5} {seconds:21.1f} {speed:10.1f} {anon:10,} {file:10,}")


if __name__ == "__main__":
    main()
