"""Tests of training episodes whose way and shot are drawn for each step.

Shapes: B episodes, N way, K shot, Q queries per class, D embedding size.
"""

import collections
import itertools

import numpy as np
import pytest

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.sampler import drawn_shapes
from leo_tf.data_pipeline.sources import load_data
from leo_tf.errors import InputError

CLASSES, ROWS, D, B, Q = 9, 12, 5, 3, 2
MIXED = Config().replace(way="2-8", shot="1-4", num_query=Q, meta_batch_size=B, seed=7)
SHAPES = list(itertools.product((2, 4, 8), (1, 2, 4)))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    splits = {}
    for number, name in enumerate(("train", "val", "test")):
        labels = np.repeat(np.arange(CLASSES) + 100 * number, ROWS)
        splits[name] = random.normal(size=[len(labels), D]), labels
    return load_data(splits)


@pytest.fixture(scope="module")
def train(data):
    return dataset.load(MIXED, ["train"], data=data)["train"]


def numbers(seed, first, count):
    return drawn_shapes(seed, first, count, len(SHAPES)).numpy()


def test_a_range_stands_for_its_ends_and_their_geometric_mean():
    assert MIXED.episodes.shapes == tuple(SHAPES)
    assert Config().replace(way="5-20").episodes.shapes == ((5, 1), (10, 1), (20, 1))
    assert Config().replace(shot="4-5").episodes.shapes == ((5, 4), (5, 5))
    assert Config().episodes.shapes == ((5, 1),)


def test_shapes_depend_on_seed_and_step_alone_and_are_equally_likely():
    drawn = numbers(7, 0, 9000)
    np.testing.assert_array_equal(numbers(7, 4000, 50), drawn[4000:4050])
    assert (numbers(8, 0, 100) != drawn[:100]).any()
    counts = collections.Counter(drawn.tolist())
    assert set(counts) == set(range(9))
    # 1000 each, with a standard deviation of 30.
    assert max(abs(count - 1000) for count in counts.values()) < 5 * 30


def test_a_step_has_the_episodes_it_would_have_if_its_shape_were_the_only_one(train):
    mixed = dataset.training_episodes(MIXED, train, start=5)
    assert mixed.element_spec.support_inputs.shape.as_list() == [B, None, None, D]
    mixed = iter(mixed)
    for step in range(5, 12):
        way, shot = SHAPES[numbers(7, step, 1)[0]]
        alone = MIXED.replace(way=way, shot=shot)
        expected = next(iter(dataset.training_episodes(alone, train, start=step)))
        for mine, theirs in zip(next(mixed), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert expected.support_inputs.shape == [B, way, shot, D]


def test_steps_of_one_call_have_one_shape():
    drawn = numbers(7, 0, 300)
    for step in range(100):
        alike = dataset.steps_alike(MIXED, step, 40)
        assert len(set(drawn[step : step + alike])) == 1
        assert alike == 40 or drawn[step + alike] != drawn[step]
    assert dataset.steps_alike(Config(), 3, 40) == 40
    assert dataset.steps_alike(MIXED, 0, 1) == 1


def test_data_must_fit_the_largest_episodes(data):
    for settings, field in [({"way": "2-10"}, "classes"), ({"shot": "1-11"}, "rows")]:
        with pytest.raises(InputError, match=field):
            dataset.load(MIXED.replace(**settings), ["train"], data=data)
    dataset.load(MIXED.replace(way="2-9", shot="1-10"), ["train"], data=data)


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_are_at_the_way_and_shot_asked_for(data, split):
    """Selection on validation must be for the way and shot of production."""
    cases = [
        (MIXED, 4, 2),  # geometric means
        (MIXED.replace(test_way=9, test_shot=3), 9, 3),
        (MIXED.replace(way=2, shot=1, test_way=7, test_shot=5), 7, 5),
    ]
    for config, way, shot in cases:
        loaded = dataset.load(config, [split], data=data)[split]
        episode = next(iter(dataset.evaluation_episodes(config, loaded, 2)))
        assert episode.support_inputs.shape == [2, way, shot, D]
