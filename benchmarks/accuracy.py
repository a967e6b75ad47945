"""Trains a preset on a data set, tests it, and prints one row of a table.

    python benchmarks/accuracy.py --data=cifarfs-conv640.npz --preset=mini_1shot

Any flag of run_leo.py may follow. A run that was interrupted goes on where it was;
one that is finished is only tested again.
"""

import argparse
import json
import pathlib
import sys
from math import nan

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from leo_tf.command_line import main

HEADER = (
    "| data | test episodes | LEO | nearest centroid | difference, paired | best step "
    "| steps | minutes | device |\n|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, results: dict) -> str:
    """One row of the table, of what results.json holds."""

    def percent(value, sign=""):
        mean, half_width = 100 * value["mean"], 100 * (value["half_width_95"] or nan)
        return f"{mean:{sign}.2f} ± {half_width:.2f}"

    test, accuracy = results["test"], results["accuracy"]
    cells = [
        name,
        f"{results['episodes']:,} x {test['way']}-way {test['shot']}-shot, "
        f"{test['num_query']} queries a class",
        percent(accuracy["leo"]),
        percent(accuracy["centroid"]),
        percent(results["leo_minus_centroid"], "+"),
        f"{results['step']:,}",
        f"{results['steps_trained']:,}",
        f"{results['seconds_trained'] / 60:.1f}",
        results["device"],
    ]
    return f"| {' | '.join(cells)} |"


def benchmark(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="an .npz file with all splits")
    parser.add_argument("--preset", default="mini_1shot")
    parser.add_argument("--workdir", help="default: runs/benchmark_DATA_PRESET")
    known, rest = parser.parse_known_args(arguments)
    name = pathlib.Path(known.data).stem
    workdir = known.workdir or f"runs/benchmark_{name}_{known.preset}"
    flags = {"data_path": known.data, "preset": known.preset, "workdir": workdir}
    given = [f"--{flag}={value}" for flag, value in flags.items()]
    status = main(["accuracy.py", *given, *rest])
    if status == 0:
        results = json.loads((pathlib.Path(workdir) / "results.json").read_text())
        print(f"\n{HEADER}\n{row(f'{name}, {known.preset}', results)}")
    return status


if __name__ == "__main__":
    sys.exit(benchmark(sys.argv[1:]))
