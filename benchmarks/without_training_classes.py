"""Measures the client's closed forms, which need no training classes.

    python benchmarks/without_training_classes.py --data=glyphs --data=embeddings/NAME

Data is "glyphs", the embedded set, or DIRECTORY/DATASET as `--data_path` and
`--dataset_name` name it. Episodes are drawn from the test classes: 5 classes of 5
examples, and 12 of 8, with at most 10 queries per class. It takes seconds.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

import leo_tf
from leo_tf.evaluation.intervals import interval
from leo_tf.serving import Classifier

FORMS = "centroid", "ridge", "lda"
SHAPES = (5, 5), (12, 8)  # classes, examples of each
QUERIES, EPISODES = 10, 200


def accuracies(table, way: int, shot: int, episodes: int) -> dict[str, np.ndarray]:
    """Returns form -> accuracy of each episode, the same episodes for all."""
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    for episode in range(episodes):
        random = np.random.default_rng(episode)
        chosen = random.choice(len(table.class_names), way, replace=False)
        rows = [random.permutation(np.flatnonzero(table.labels == c)) for c in chosen]
        support = np.concatenate([each[:shot] for each in rows])
        queries = np.concatenate([each[shot : shot + QUERIES] for each in rows])
        for form in FORMS:
            classifier = Classifier(form)
            classifier.fit(table.embeddings[support], table.labels[support])
            score = classifier.score(table.embeddings[queries], table.labels[queries])
            found[form].append(score)
    return {form: np.array(each) for form, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", action="append", default=[], help="may be repeated")
    print(f"| | {' | '.join(FORMS)} |\n|---|{'---:|' * len(FORMS)}")
    for name in parser.parse_args().data or ["glyphs"]:
        path, _, dataset = name.rpartition("/")
        given = {"dataset_name": dataset} if path else {}
        table = leo_tf.load_data(path or None, **given)["test"]
        for way, shot in SHAPES:
            every = accuracies(table, way, shot, EPISODES).values()
            cells = [str(interval(found)) for found in every]
            print(f"| {dataset}, {way} classes of {shot} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
