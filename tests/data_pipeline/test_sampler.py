"""Tests that episodes are fair draws, and pure functions of their number."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from leo_tf.data_pipeline import sampler as sampler_module
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.sampler import (
    ClassIndex,
    RowSampler,
    episode_names,
    largest_num_query,
)
from leo_tf.errors import InputError

SIZES = (7, 4, 9, 5)


def _table(sizes, names=None):
    """A table whose rows are in random order, classes of the given sizes."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(labels)
    return EmbeddingTable(
        embeddings=np.ones((len(labels), 2)),
        labels=labels,
        class_names=tuple(f"class {c}" for c in range(len(sizes))),
        names=names,
        source="some.npz",
    )


def _sampler(
    sizes=SIZES, *, way=3, shot=1, num_query=2, seed=5, split="train", dirichlet=None
):
    return RowSampler(
        ClassIndex.of(_table(sizes)),
        way=way,
        shot=shot,
        num_query=num_query,
        seed=seed,
        split=split,
        query_dirichlet=dirichlet,
    )


@pytest.fixture(params=[2**13, 4, 3], ids="a key for each of {}".format)
def most_keys(request, monkeypatch):
    """Draws from more classes and rows than this as from very many."""
    monkeypatch.setattr(sampler_module, "_MOST_KEYS", request.param)


def _as_arrays(rows):
    return [np.asarray(part) for part in rows if part is not None]


def _assert_same(rows, expected):
    for part, expected_part in zip(_as_arrays(rows), _as_arrays(expected), strict=True):
        np.testing.assert_array_equal(part, expected_part)


def _assert_uniform(outcomes, num_outcomes):
    """Asserts a chi-square of at most its mean plus five standard deviations."""
    counts = np.bincount(outcomes, minlength=num_outcomes)
    assert len(counts) == num_outcomes
    expected = len(outcomes) / num_outcomes
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = num_outcomes - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom), counts


@st.composite
def _setups(draw):
    way, shot, num_query = (draw(st.integers(1, most)) for most in (4, 3, 4))
    least = shot + num_query
    sizes = draw(st.lists(st.integers(least, least + 6), min_size=way, max_size=7))
    return sizes, way, shot, num_query


@settings(max_examples=50)
@given(_setups(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40 - 3))
def test_an_episode_is_drawn_without_replacement(setup, seed, first):
    sizes, way, shot, num_query = setup
    sampler = _sampler(sizes, way=way, shot=shot, num_query=num_query, seed=seed)
    labels = _table(sizes).labels
    support, query, classes = _as_arrays(sampler(first, 3))
    assert support.shape == (3, way, shot) and query.shape == (3, way, num_query)
    for episode in range(3):
        assert len(set(classes[episode])) == way
        taken = [*support[episode].ravel(), *query[episode].ravel()]
        assert len(set(taken)) == way * (shot + num_query)
        for n in range(way):
            assert (labels[support[episode, n]] == classes[episode, n]).all()
            assert (labels[query[episode, n]] == classes[episode, n]).all()


def test_equal_keys_take_no_row_twice_and_none_of_another_class(monkeypatch):
    # All keys 0 is the worst case: every tie there is, and none above the mask.
    sampler = _sampler()
    keys = tf.zeros([1, 4], tf.uint32), tf.zeros([1, 3, 9], tf.uint32), None
    monkeypatch.setattr(sampler, "_draw", lambda first, count: keys)
    support, query, classes = _as_arrays(sampler(0, 1))
    labels = _table(SIZES).labels
    np.testing.assert_array_equal(classes, [[0, 1, 2]])
    rows = np.concatenate([support, query], axis=-1)[0]  # [N, K + Q]
    np.testing.assert_array_equal(labels[rows], [[0] * 3, [1] * 3, [2] * 3])
    assert len(set(rows.ravel())) == 9


@pytest.mark.parametrize("first", [0, 2**39])
def test_an_episode_does_not_depend_on_batch_size_or_start(first, most_keys):
    sampler = _sampler()
    together = sampler(first, 20)
    alone = [_as_arrays(sampler(first + i, 1)) for i in range(20)]
    _assert_same(together, [np.concatenate(part) for part in zip(*alone)])
    by_seven = [_as_arrays(sampler(first + 6 + 7 * b, 7)) for b in range(2)]
    expected = [part[6:] for part in _as_arrays(together)]
    _assert_same([np.concatenate(part) for part in zip(*by_seven)], expected)


def test_a_graph_draws_what_eager_execution_draws(most_keys):
    sampler = _sampler()
    in_graph = tf.function(sampler)(tf.constant(11, tf.int64), tf.constant(6))
    _assert_same(in_graph, sampler(11, 6))


def test_the_episodes_of_a_seed_never_change():
    # Recorded once. If this fails, nobody can reproduce a published run any more.
    support, query, classes = _as_arrays(_sampler(seed=0, split="test")(1_000_000, 1))
    assert classes.tolist() == [[2, 0, 3]]
    assert support.tolist() == [[[17], [23], [14]]]
    assert query.tolist() == [[[15, 8], [19, 10], [11, 9]]]


def test_nor_do_those_of_tables_of_very_many_rows(monkeypatch):
    monkeypatch.setattr(sampler_module, "_MOST_KEYS", 4)
    sizes = (7, 4, 9, 5, 6)
    sampler = _sampler(sizes, seed=0, split="test")
    support, query, classes = _as_arrays(sampler(1_000_000, 1))
    assert classes.tolist() == [[4, 0, 2]]
    assert support.tolist() == [[[2], [12], [30]]]
    assert query.tolist() == [[[27, 24], [9, 0], [19, 7]]]


@pytest.mark.parametrize("dirichlet", [None, 1.0])
def test_from_very_many_rows_none_is_taken_twice(monkeypatch, dirichlet):
    monkeypatch.setattr(sampler_module, "_MOST_KEYS", 8)
    sizes = (17, 4, 19, 25, 6, 22)
    sampler = _sampler(sizes, dirichlet=dirichlet)
    labels = _table(sizes).labels
    support, query, classes, *asked = _as_arrays(sampler(0, 200))
    for episode in range(200):
        assert len(set(classes[episode])) == 3
        taken = [*support[episode].ravel(), *query[episode].ravel()]
        assert len(set(taken)) == 9
        assert (labels[support[episode, :, 0]] == classes[episode]).all()
        of = asked[0][episode] if asked else np.arange(3)[:, np.newaxis]
        assert (labels[query[episode]] == classes[episode][of]).all()


def test_an_episode_takes_as_many_random_words_from_a_table_of_any_size(monkeypatch):
    drawn = []
    draw = sampler_module._philox
    monkeypatch.setattr(
        sampler_module,
        "_philox",
        lambda *given: drawn.append(given[-1]) or draw(*given),
    )
    for classes, rows in ((10, 2**14), (10, 2**17), (2**14, 5), (2**17, 5)):
        sizes = np.full(classes, rows)
        index = ClassIndex(np.arange(classes * rows), sizes, ("a",) * classes, "x")
        sampler = RowSampler(index, way=3, shot=1, num_query=2, seed=0, split="train")
        support, query, _ = _as_arrays(sampler(2**39, 2))
        assert len({*support.ravel(), *query.ravel()}) == 18
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3]


@pytest.mark.parametrize(
    "changed", [{"seed": 6}, {"split": "val"}, {"split": "test"}, {"first": 1}]
)
def test_seeds_splits_and_episodes_are_independent(changed):
    changed = dict(changed)
    first = changed.pop("first", 0)
    one = _sampler(way=1)(0, 6000).classes.numpy()[:, 0]
    other = _sampler(way=1, **changed)(first, 6000).classes.numpy()[:, 0]
    _assert_uniform(one * 4 + other, 16)


def test_every_ordered_choice_of_classes_is_equally_likely(most_keys):
    classes = _sampler(way=2)(0, 6000).classes.numpy()
    first, second = classes.T
    _assert_uniform(first * 3 + second - (second > first), 4 * 3)


@pytest.mark.parametrize("label", range(4))
def test_every_ordered_choice_of_rows_is_equally_likely(label, most_keys):
    support, query, classes = _as_arrays(_sampler(way=4)(0, 6000))
    chosen = classes == label  # [B, N]
    rows_of_class = np.flatnonzero(_table(SIZES).labels == label)
    first = np.searchsorted(rows_of_class, support[chosen][:, 0])
    second = np.searchsorted(rows_of_class, query[chosen][:, 1])
    size = SIZES[label]
    _assert_uniform(first * (size - 1) + second - (second > first), size * (size - 1))


@pytest.mark.parametrize(
    "sizes, options, message",
    [
        (SIZES, {"way": 5}, "some.npz: classes for train: expected at least way = 5"),
        (
            (9, 4, 5, 3),
            {"shot": 2, "num_query": 3},
            r"some.npz: `labels`: expected shot \+ num_query = 2 \+ 3 or more rows in "
            r"every class, received 2 of 4 classes with fewer: "
            r"'class 1' \(4\), 'class 3' \(3\)\.",
        ),
        ((1,) * 9, {}, r"9 of 9 .* \(1\), 'class 1' \(1\), 'class 2' \(1\), \.\.\."),
        (SIZES, {"way": 0}, "`way`: expected an integer of 1 or more, received 0"),
        (
            SIZES,
            {"shot": 1.5},
            "`shot`: expected an integer of 1 or more, received 1.5",
        ),
        (SIZES, {"num_query": None}, "`num_query`: .* received None"),
        (SIZES, {"split": "dev"}, "`split`: expected train, val, test, received 'dev'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_construction(sizes, options, message):
    with pytest.raises(InputError, match=message):
        _sampler(sizes, **options)


def test_a_table_of_just_enough_rows_is_used_up():
    support, query, _ = _as_arrays(_sampler((3, 3, 3))(0, 5))
    used = np.concatenate([support, query], axis=-1).reshape(5, 9)
    np.testing.assert_array_equal(np.sort(used), np.tile(np.arange(9), (5, 1)))


@pytest.mark.parametrize(
    "sizes, shot, limit, expected",
    [((620, 640), 1, 600, 599), ((9, 7, 8), 5, 600, 2), ((9, 7, 8), 5, 6, 1)],
)
def test_queries_are_what_the_smallest_class_or_the_limit_leaves(
    monkeypatch, sizes, shot, limit, expected
):
    monkeypatch.setattr(sampler_module, "RELEASE_EXAMPLES_PER_CLASS", limit)
    table = _table(sizes)
    assert largest_num_query(table, shot) == expected
    assert largest_num_query(ClassIndex.of(table), shot) == expected


def test_a_class_that_leaves_no_query_is_named():
    with pytest.raises(InputError, match=r"some.npz: .*1 of 3 .*: 'class 1' \(5\)"):
        largest_num_query(_table((9, 5, 8)), shot=5)


def test_names_are_those_of_the_rows():
    names = np.array([f"picture {row}" for row in range(sum(SIZES))])
    rows = _sampler()(3, 2)
    found = episode_names(_table(SIZES, names), rows)
    assert found.labels is None
    labelled = episode_names(_table(SIZES, names), rows._replace(labels=rows.query))
    assert labelled.labels is rows.query
    for b, n in np.ndindex(2, 3):
        assert found.classes[b, n] == f"class {rows.classes[b, n]}"
        assert found.support[b, n, 0] == f"picture {rows.support[b, n, 0]}"
        for q in range(2):
            assert found.query[b, n, q] == f"picture {rows.query[b, n, q]}"


def test_names_of_a_table_without_names_are_refused():
    with pytest.raises(InputError, match=r"some.npz: `names`: .* received none"):
        episode_names(_table(SIZES), _sampler()(0, 1))


@settings(max_examples=40)
@given(_setups(), st.integers(0, 2**40 - 5), st.sampled_from([0.01, 0.3, 2.0, 1000.0]))
def test_unbalanced_queries_are_as_many_and_none_is_taken_twice(setup, first, alpha):
    sizes, way, shot, num_query = setup
    shape = {"way": way, "shot": shot, "num_query": num_query}
    sampler = _sampler(sizes, **shape, dirichlet=alpha)
    truth = _table(sizes).labels
    support, query, classes, labels = _as_arrays(sampler(first, 4))
    assert query.shape == labels.shape == (4, way, num_query)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(
        truth[query.reshape(4, -1)],
        np.take_along_axis(classes, labels.reshape(4, -1), axis=1),
    )
    for mine, its in zip(support, query):
        taken = [*mine.ravel(), *its.ravel()]
        assert len(set(taken)) == len(taken)  # so no class gives more than it has
    balanced = _sampler(sizes, **shape)(first, 4)
    np.testing.assert_array_equal(support, balanced.support)
    np.testing.assert_array_equal(classes, balanced.classes)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0, 30.0])
def test_shares_of_classes_have_the_moments_of_the_dirichlet_distribution(alpha):
    way, num_query, count = 3, 400, 4000
    sampler = _sampler((1500,) * 3, way=way, num_query=num_query, dirichlet=alpha)
    words = sampler._words(0, count, way, sampler_module._UNBALANCED)
    shares = sampler_module._dirichlet(words, alpha).numpy()
    expected = np.random.default_rng(0).dirichlet([alpha] * way, size=200_000)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    for moment in (
        lambda x: x.mean(axis=0),
        lambda x: x.var(axis=0),
        lambda x: ((x - 1 / way) ** 3).mean(axis=0),
        lambda x: [np.cov(x.T)[0, 1]],
        lambda x: np.quantile(x, [0.1, 0.5, 0.9], axis=0).ravel(),
    ):
        mine, its = moment(shares), moment(expected)
        np.testing.assert_allclose(mine, its, atol=0.025, rtol=0.08)
    labels = sampler(0, 50).labels.numpy().reshape(50, -1)
    counts = np.stack([np.bincount(row, minlength=way) for row in labels])
    assert np.abs(counts - shares[:50] * way * num_query).max() <= 1


def test_what_a_class_has_not_is_made_up_by_the_others_room():
    sampler = _sampler((3, 40, 7), way=3, shot=1, num_query=2, dirichlet=0.05)
    left = np.array([2, 39, 6])
    _, _, classes, labels = _as_arrays(sampler(0, 300))
    counts = np.stack([np.bincount(x.ravel(), minlength=3) for x in labels])
    assert np.all(counts <= left[classes]) and np.all(counts.sum(axis=1) == 6)
    full = counts[classes == 0]  # most of one class are wanted often, and are not there
    assert np.mean(full == 2) > 0.2 and np.mean(full == 0) > 0.3


def test_an_unbalanced_episode_is_the_same_in_every_batch_and_in_a_graph():
    sampler = _sampler(dirichlet=2.0)
    together = sampler(10, 7)
    for i in range(7):
        alone = sampler(10 + i, 1)
        _assert_same(alone, [part[i : i + 1] for part in together])
    graph = tf.function(sampler)
    _assert_same(graph(tf.constant(10), tf.constant(7)), together)
    for other in (
        _sampler(dirichlet=2.0, seed=6),
        _sampler(dirichlet=2.0, split="val"),
    ):
        assert np.any(other(10, 7).labels != together.labels)
