"""Tests the episodes that the client's closed forms are measured on."""

import numpy as np

import leo_tf
from benchmarks.without_training_classes import accuracies


def test_separate_classes_are_told_apart_and_noise_is_not():
    labels = np.repeat([f"class{i}" for i in range(6)], 8)
    random = np.random.default_rng(0)
    noise = random.normal(size=[48, 6])
    apart = np.repeat(np.eye(6), 8, axis=0) + 0.01 * noise
    for features, low, high in ((apart, 1.0, 1.0), (noise, 0.1, 0.4)):
        table = leo_tf.load_data({"test": (features, labels)})["test"]
        found = accuracies(table, way=5, shot=5, episodes=20)
        assert found.keys() == {"centroid", "ridge", "lda"}
        for each in found.values():
            assert len(each) == 20 and low <= each.mean() <= high
