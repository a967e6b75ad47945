"""Measures methods at other ways and shots than they were trained at.

    python benchmarks/ways_and_shots.py --data_path=DATA.npz --workdir=ways

LEO is trained at several ways and on mixed episodes, closed forms stand beside, and all
answer the same test episodes of every way and shot that the split has classes and rows
for. What is trained is a run directory below --workdir, and every cell that is measured
is kept in cells.json there: the same command resumes where it stopped. It writes
table.md and plot.png there.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.sources import load_data
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.experiments.train import train
from leo_tf.files import to_json, write_file
from leo_tf.reports import figures
from leo_tf.reports.table import Table, document
from leo_tf.runs.run import load_run

# Title -> settings. Those of fine-tuning: docs/methods.md, "Many classes".
_FINE_TUNING = {"finetuning_lr_init": 1.0, "test_finetuning_steps": 50}
METHODS = {
    "LEO, 5-way": {"way": 5, "shot": 5},
    "LEO, 10-way": {"way": 10, "shot": 5},
    "LEO, 20-way": {"way": 20, "shot": 5},
    "LEO, mixed ways": {"way": "5-20", "shot": 5},
    "LEO, mixed": {"way": "5-20", "shot": "1-5"},
    "LEO, mixed, fine-tuned": {"way": "5-20", "shot": "1-5", **_FINE_TUNING},
    "LEO, mixed, lda": {"way": "5-20", "shot": "1-5", "feature_transform": "lda"},
    "centroid": {"method": "centroid"},
    "ridge": {"method": "ridge"},
    "centroid, lda": {"method": "centroid", "feature_transform": "lda"},
    "centroid, soft": {"method": "centroid", "feature_transform": "soft"},
}
# Lightly tuned, as for the embedded set; what is chosen is chosen at 10-way 5-shot.
_COMMON = {
    **{"outer_lr": 1e-3, "dropout_rate": 0.3, "kl_weight": 1e-3, "num_query": 5},
    **{"test_way": 10, "test_shot": 5, "test_num_query": 5, "num_test_episodes": 1},
}
_LEAST_EPISODES = 10
_LEAD = "best LEO minus best closed form, as the test prefers"


def trained(title: str, config: Config, data, workdir: pathlib.Path):
    """The best of the run of these settings: trained, or found trained, below."""
    path = workdir / title.replace(", ", "_").replace(" ", "_")
    train(config.replace(**METHODS[title]), path, data=data, console=Console())
    run = load_run(path)
    run.restore_best()
    return run.learner


def measured(learner, config: Config, split, way: int, shot: int, episodes: int):
    """Returns the accuracy of each episode; with many classes there are fewer."""
    count = max(_LEAST_EPISODES, min(episodes, episodes * 5 // way))
    config = config.replace(test_way=way, test_shot=shot)
    # Few large batches, for which tracing would take longer than they do.
    tf.config.run_functions_eagerly(True)
    scores = evaluate({"": learner}, dataset.evaluation_episodes(config, split, count))
    tf.config.run_functions_eagerly(False)
    return scores[""].accuracy.tolist()


def sizes(given, most: int) -> list[int]:
    return [size for size in given if size <= most]


def table(cells: dict, titles: list[str]) -> Table:
    """A row for each way and shot; the last column is paired by episode.

    The test chooses its two methods, which its interval does not know.
    """
    leo = [title for title in titles if title.startswith("LEO")]
    others = [title for title in titles if title not in leo]
    last = (_LEAD,) if leo and others else ()
    rows = []
    for name, found in cells.items():
        means = {title: interval(found[title]) for title in titles}
        row = [name, *(str(means[title]) for title in titles)]
        if last:
            two = (max(each, key=lambda t: means[t].mean) for each in (leo, others))
            lead = interval(np.subtract(*(found[title] for title in two)))
            row.append(f"{100 * lead.mean:+.2f} ± {100 * lead.half_width:.2f}")
        rows.append(tuple(row))
    return Table(("test", *titles, *last), rows, left=("test",))


def plot(cells: dict, titles: list[str], shots: list[int]):
    """A panel for each shot: accuracy against the test way, intervals as bars."""
    figure, panels = figures.new_panels(len(shots), 2, 4.6, 3.4, "Accuracy, %")
    for shot, axes in zip(shots, panels):
        for number, title in enumerate(titles):
            points = {
                int(name.split("-")[0]): interval(found[title])
                for name, found in cells.items()
                if name.endswith(f" {shot}-shot")
            }
            drawn: list[Interval] = list(points.values())
            axes.errorbar(
                list(points),
                [100 * each.mean for each in drawn],
                [100 * each.half_width for each in drawn],
                label=title,
                color=f"C{number}",
                linestyle="-" if title.startswith("LEO") else "--",
                linewidth=1.2,
            )
        axes.set_xscale("log")
        axes.set_xticks(list(points), map(str, points), minor=False)
        axes.minorticks_off()
        axes.set_title(f"{shot}-shot", fontsize=9)
        axes.set_xlabel("classes of a test episode", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=7,
    )
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--dataset_name")
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--ways", type=int, nargs="+", default=[2, 5, 10, 20, 50, 100])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=1000)
    given = parser.parse_args()
    data = load_data(given.data_path, dataset_name=given.dataset_name)
    config = Config().replace(
        **_COMMON,
        num_steps=given.steps,
        validate_every=max(1, given.steps // 3),
        meta_batch_size=given.tasks,
        num_val_episodes=200,
    )
    split = dataset.load(config, ["test"], data=data)["test"]
    path = given.workdir / f"cells_{given.episodes}.json"
    rows = split.table.index.class_sizes.min()
    cells = json.loads(path.read_text()) if path.exists() else {}
    shots = sizes(given.shots, rows - _COMMON["test_num_query"])
    shapes = list(itertools.product(shots, sizes(given.ways, len(split.class_names))))
    for title in given.methods:
        learner = trained(title, config, data, given.workdir)
        for shot, way in shapes:
            cell = cells.setdefault(f"{way}-way {shot}-shot", {})
            if title not in cell:
                options = way, shot, given.episodes
                cell[title] = measured(learner, config, split, *options)
                write_file(path, to_json(cells))
        known = {name: c[title] for name, c in cells.items() if title in c}
        print(title, {name: str(interval(found)) for name, found in known.items()})
    titles = given.methods  # in the order of shapes, whenever they were measured
    cells = {(name := f"{way}-way {shot}-shot"): cells[name] for shot, way in shapes}
    (given.workdir / "table.md").write_text(document([table(cells, titles)]))
    figures.save(given.workdir / "plot.png", plot(cells, titles, shots))


if __name__ == "__main__":
    main()
