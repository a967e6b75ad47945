"""Measures accuracy against the number of training classes.

    python benchmarks/training_classes.py --data=glyphs --data=embeddings/miniImageNet \
        --workdir=runs/training_classes --plot=training_classes.png

Data is "glyphs", the embedded set, or DIRECTORY/DATASET as `--data_path` and
`--dataset_name` name it. Training classes are left out by `--seed`: those of a smaller
number are among those of a larger. Validation and test stay whole. All methods answer
the same test episodes; transforms are fitted to the classes that are left. What is
measured is kept below `--workdir`, and not measured again.
"""

import argparse
import os
import pathlib
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

import leo_tf
from leo_tf.files import read_json, to_json, write_file

COUNTS = (5, 10, 20, 40)  # and all
METHODS = "centroid@within,lda,leo@lda"
UNAWARE = "centroid", "ridge"  # of training classes, so measured once
SETTINGS = {
    "test_num_query": 15,
    "validate_every": 125,
    "patience": 4,
    "num_val_episodes": 500,
}


def with_classes(data, count: int, seed: int):
    """The data with `count` of its training classes, the first of a random order."""
    table = data["train"]
    order = np.random.default_rng(seed).permutation(len(table.class_names))
    kept = np.isin(np.arange(len(order)), order[:count])
    return leo_tf.load_data({**data, "train": table.with_classes(kept)})


def counts_of(data) -> list[int]:
    """Returns the numbers of training classes to measure with."""
    most = len(data["train"].class_names)
    return [*(count for count in COUNTS if count < most), most]


def measured(data, config, methods, file: pathlib.Path) -> dict:
    """Returns method -> accuracy, and difference to the last: mean and half-width."""
    about = {"config": config.to_dict(), "methods": [*methods]}
    if file.exists():
        found = read_json(file, 2**20)
        if {name: found[name] for name in about} == about:
            return found["points"]
        sys.exit(f"{file}: measured with other settings; give another --workdir.")
    print(file, file=sys.stderr, flush=True)
    runs = file.with_suffix("")
    rows = leo_tf.compare(config, methods, runs, data=data).rows
    points = {row.name: [row.accuracy, row.difference] for row in rows}
    write_file(file, to_json({**about, "points": points}))
    shutil.rmtree(runs)  # with a copy of the data
    return points


def table_of(name: str, found: dict[int, dict], methods: list[str]) -> str:
    """A table in Markdown: a row per method, a column per number of classes."""
    lines = [f"| {name}, training classes | {' | '.join(map(str, found))} |"]
    lines.append(f"|---|{'---:|' * len(found)}")
    *others, last = methods
    for method in (*UNAWARE, *methods):
        pairs = (point[method][0] for point in found.values())
        cells = (f"{100 * mean:.2f} ± {100 * width:.2f}" for mean, width in pairs)
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    for method in others:
        pairs = (point[method][1] for point in found.values())
        cells = (f"{-100 * mean:+.2f} ± {100 * width:.2f}" for mean, width in pairs)
        lines.append(f"| `{last}` minus `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, dict[int, dict]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found), 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, points) in zip(panels, found.items()):
        for method in next(iter(points.values())):
            accuracies = [100 * np.array(p[method][0]) for p in points.values()]
            means, widths = zip(*accuracies)
            style = {"linewidth": 2.4} if "leo" in method else {"alpha": 0.8}
            axes.errorbar([*points], means, widths, marker="o", label=method, **style)
        axes.set(title=name, xlabel="training classes", xscale="log")
        axes.set_xticks([*points], [f"{count}" for count in points])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy in %")
    panels[0].legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", help="glyphs, or a path")
    parser.add_argument("--workdir", default="runs/training_classes")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_steps", type=int, default=1000)
    parser.add_argument("--num_test_episodes", type=int, default=2000)
    parser.add_argument("--plot", help="where to write a picture")
    given = parser.parse_args()
    names = "shot", "seed", "num_steps", "num_test_episodes"
    settings = {**SETTINGS, **{name: getattr(given, name) for name in names}}
    config = leo_tf.PRESETS["glyphs"].config().replace(**settings)
    found: dict[str, dict] = {}
    methods = given.methods.split(",")
    if not methods[-1].startswith("leo"):
        parser.error("--methods: the last must be LEO, to compare with")
    for source in given.data or ["glyphs"]:
        path = pathlib.Path(source)
        place = {"source": path.parent, "dataset_name": path.stem}
        data = leo_tf.load_data(**({} if source == "glyphs" else place))
        directory = pathlib.Path(given.workdir, f"{path.stem}_{given.shot}shot")
        directory.mkdir(parents=True, exist_ok=True)
        points = found.setdefault(path.stem, {})
        unaware = measured(data, config, UNAWARE, directory / "any.json")
        for count in counts_of(data):
            part, file = with_classes(data, count, given.seed), f"{count}.json"
            aware = measured(part, config, methods, directory / file)
            points[count] = {**unaware, **aware}
        print(f"{table_of(path.stem, points, methods)}\n", flush=True)
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
