"""Tests which training classes the benchmark leaves out, and its tables."""

import numpy as np

import leo_tf
from benchmarks.training_classes import counts_of, table_of, with_classes


def classes_of(data, split="train") -> set[str]:
    return set(data[split].class_names)


def test_fewer_classes_are_among_more_and_other_splits_stay():
    random = np.random.default_rng(0)
    arrays = {
        split: (
            random.normal(size=[2 * n, 3]),
            np.repeat([f"{split}{i}" for i in range(n)], 2),
        )
        for split, n in (("train", 12), ("val", 6), ("test", 7))
    }
    data = leo_tf.load_data(arrays)
    assert counts_of(data) == [5, 10, 12]
    parts = [with_classes(data, count, seed=3) for count in (5, 10, 12)]
    kept = [classes_of(part) for part in parts]
    assert [len(each) for each in kept] == [5, 10, 12]
    assert kept[0] < kept[1] < kept[2] == classes_of(data)
    assert classes_of(with_classes(data, 5, seed=4)) != kept[0]
    for split in ("val", "test"):
        assert parts[0][split].digest == data[split].digest


def test_differences_are_of_the_last_method_to_those_that_know_the_classes():
    known = {"lda": [(0.5, 0.01), (-0.25, 0.02)], "leo@lda": [(0.75, 0.01), None]}
    unaware = {name: [(0.3, 0.01), None] for name in ("centroid", "ridge")}
    assert table_of("set", {5: {**unaware, **known}}, ["lda", "leo@lda"]) == (
        "| set, training classes | 5 |\n"
        "|---|---:|\n"
        "| `centroid` | 30.00 ± 1.00 |\n"
        "| `ridge` | 30.00 ± 1.00 |\n"
        "| `lda` | 50.00 ± 1.00 |\n"
        "| `leo@lda` | 75.00 ± 1.00 |\n"
        "| `leo@lda` minus `lda` | +25.00 ± 2.00 |"
    )
