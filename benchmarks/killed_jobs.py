"""Kills workers, drivers and Ray nodes in the middle of jobs; tables must not show it.

    python benchmarks/killed_jobs.py --kind=worker --mode=compare --kills=3 -- FLAG...

Does the job once undisturbed, then again with `--kills` kills at random moments, and
compares the results: all but the times taken must be equal to the last digit. What
follows `--` is given to the job; without it, a tiny data set is trained on. Exits
non-zero if anything differs. With `--kind=node` it starts a Ray cluster of two nodes of
its own, on loopback.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import psutil

ROOT = pathlib.Path(__file__).parents[1]
_SMALL = (
    *("--dataset_name=tiny", "--way=3", "--shot=1", "--num_query=3"),
    *("--meta_batch_size=2", "--num_latents=4", "--inner_unroll_length=1"),
    *("--finetuning_unroll_length=1", "--outer_lr=0.02", "--num_val_episodes=6"),
    *("--num_test_episodes=8", "--log_every=20", "--validate_every=20"),
    *("--num_steps=400", "--jit=off"),
)
_OF_MODE = {
    "compare": ("--methods=ridge@lda,leo,generator,protonet",),
    "search": ("--methods=leo,protonet", "--trials=6", "--rungs=2"),
    "reproduce": ("--seeds=3",),
    "folds": ("--mode=compare", "--methods=ridge,leo", "--class_folds=3"),
}
_LOOPBACK = "127.0.0.1"
_MEMORY = 100 * 2**20


def tiny_data(directory: pathlib.Path, in_one_file: bool) -> pathlib.Path:
    """Writes three splits of noisy clusters, or all of their classes in one file."""
    arrays = {}
    for seed, (split, classes) in enumerate({"train": 8, "val": 6, "test": 7}.items()):
        rng = np.random.default_rng(seed)
        centres = np.repeat(rng.normal(size=(classes, 8)), 12, axis=0)
        features = np.float32(centres + rng.normal(size=centres.shape))
        labels = np.repeat([f"{split}_{i}" for i in range(classes)], 12)
        arrays[split] = features, labels
        path = directory / "tiny" / f"{split}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, embeddings=features, labels=labels)
    features, labels = (np.concatenate(each) for each in zip(*arrays.values()))
    np.savez(directory / "all.npz", X=features, y=labels)
    return directory / "all.npz" if in_one_file else directory


def start(workdir: pathlib.Path, flags: list[str]) -> subprocess.Popen:
    """Starts the job."""
    command = [sys.executable, str(ROOT / "run_leo.py"), f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, start_new_session=True)


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes that a job has now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child
            for child in psutil.Process(process.pid).children()
            if any("runner.worker" in part for part in child.cmdline())
        ]
    return []


def has_ended(process: subprocess.Popen, seconds: float) -> bool:
    """Waits so long; says whether the job has ended meanwhile."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return True
    return False


class Disturbed:
    """A job that is killed again and again, and resumes until it is done."""

    def __init__(self, workdir, flags, rng, cluster=None):
        self.workdir, self.flags, self.rng, self.cluster = workdir, flags, rng, cluster
        self.killed: list[str] = []

    def run(self, kind: str, kills: int, longest: float) -> int:
        """Does the job; returns its exit status."""
        process = start(self.workdir, self.flags)
        while len(self.killed) < kills:
            if has_ended(process, self.rng.uniform(0.1, longest)):
                break
            if kind == "driver":
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                self.killed.append(f"driver {process.pid}")
                process = start(self.workdir, self.flags)
            elif kind == "worker" and (found := workers_of(process)):
                victim = self.rng.choice(found)
                victim.kill()
                self.killed.append(f"worker {victim.pid}")
            elif kind == "node" and self.cluster is not None:
                self.cluster.replace_node()
                self.killed.append("node")
        return process.wait()


class Cluster:
    """A Ray cluster of two nodes on loopback; one can be killed and replaced."""

    def __init__(self):
        # Before Ray is imported: what it starts listens on loopback alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        from ray.cluster_utils import Cluster as Nodes

        self._node = {"num_cpus": 1, "object_store_memory": _MEMORY}
        self._node["node_ip_address"] = _LOOPBACK
        self._nodes = Nodes(initialize_head=True, head_node_args=self._node)
        self._second = self._nodes.add_node(**self._node)
        self.address = self._nodes.address

    def replace_node(self) -> None:
        """Kills the second node with all that runs there, and adds another."""
        self._nodes.remove_node(self._second, allow_graceful=False)
        self._second = self._nodes.add_node(**self._node)

    def stop(self) -> None:
        """Ends it."""
        self._nodes.shutdown()


@contextlib.contextmanager
def cluster_for(kind: str) -> Iterator[Cluster | None]:
    """A Ray cluster, if nodes are to be killed."""
    cluster = Cluster() if kind == "node" else None
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()


def table(workdir: pathlib.Path):
    """All that a job found, without the times it took and where it is."""

    def kept(value):
        if isinstance(value, dict):
            timed = (key.startswith("seconds") for key in value)
            pairs = zip(value.items(), timed)
            return {key: kept(each) for (key, each), is_time in pairs if not is_time}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return kept(json.loads((workdir / "results.json").read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=("worker", "driver", "node"), required=True)
    parser.add_argument("--mode", choices=(*_OF_MODE,), default="compare")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds between")
    parser.add_argument("flags", nargs="*", help="of the job")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, cluster_for(options.kind) as cluster:
        directory = pathlib.Path(name)
        data = tiny_data(directory / "data", options.mode == "folds")
        mode = [f"--mode={options.mode}"] * (options.mode != "folds")
        flags = [*_SMALL, f"--data_path={data}", *mode, *_OF_MODE[options.mode]]
        flags += [*options.flags, "--quiet"]
        where = [f"--cluster={cluster.address}"] if cluster else ["--jobs=2"]
        whole, broken = directory / "whole", directory / "broken"
        status = start(whole, [*flags, "--jobs=1"]).wait()
        job = Disturbed(broken, [*flags, *where], random.Random(options.seed), cluster)
        statuses = status, job.run(options.kind, options.kills, options.longest)
        is_equal = statuses == (0, 0) and table(whole) == table(broken)
        print(f"{options.mode}: killed {', '.join(job.killed) or 'nothing'}")
        print(f"exit statuses {statuses}; tables {'equal' if is_equal else 'DIFFER'}")
        return 0 if is_equal and len(job.killed) == options.kills else 1


if __name__ == "__main__":
    started = time.monotonic()
    found = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(found)
