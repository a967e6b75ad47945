"""Transductive methods against their papers' formulas, a loop at a time in NumPy.

Shapes: B tasks, N way, S support examples and M queries of a task, D embedding size.
"""

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.methods.query_aware.bd_cspn import BDCSPN
from leo_tf.methods.query_aware.laplacian_shot import LaplacianShot
from leo_tf.methods.query_aware.pt_map import PTMAP
from leo_tf.methods.query_aware.soft_kmeans import SoftKMeans

B, N, D = 3, 4, 6
COUNTS = (2, 1, 3, 2)  # support examples of each class
METHODS = {
    "soft_kmeans": SoftKMeans(3.0, scale=2.0),
    "bd_cspn": BDCSPN(scale=5.0),
    "laplacian_shot": LaplacianShot(0.7, scale=2.0),
    "pt_map": PTMAP(scale=0.5),
}
every_method = pytest.mark.parametrize("name", METHODS)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_task(seed=0, counts=COUNTS, queries=(9, 14, 3, 5), noise=0.6):
    """(support [S, D], labels [S], queries [M, D], their labels [M])"""
    random = np.random.default_rng(seed)
    centres = random.normal(size=[len(counts), D])
    parts = []
    for sizes in (counts, queries):
        labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
        rows = centres[labels] + noise * random.normal(size=[len(labels), D])
        parts += [unit(rows), labels]
    return parts


def answered(method, tasks, dtype="float64"):
    """[B, M, N] in NumPy."""
    support, labels, queries = (np.stack(x) for x in list(zip(*tasks))[:3])
    targets = np.eye(labels.max() + 1)[labels]
    arrays = (tf.constant(x, dtype) for x in (support, targets, queries))
    return method.answer(*arrays).numpy()


def means_of(support, labels):
    return [support[labels == n].mean(axis=0) for n in range(labels.max() + 1)]


def squared(x, y):
    return float(np.sum((x - y) ** 2))


def cosine(x, y):
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def softmax(values):
    values = np.exp(np.array(values) - np.max(values))
    return values / values.sum()


def soft_kmeans(support, labels, queries):
    means, refined = means_of(support, labels), []
    shares = [softmax([-3.0 * squared(x, m) for m in means]) for x in queries]
    for n in range(len(means)):
        total, count = np.zeros(D), 0.0
        for x, label in zip(support, labels):
            if label == n:
                total, count = total + x, count + 1
        for x, share in zip(queries, shares):
            total, count = total + share[n] * x, count + share[n]
        refined.append(total / count)
    return [[-2.0 * squared(x, m) for m in refined] for x in queries]


def bd_cspn(support, labels, queries):
    means, rectified = means_of(support, labels), []
    queries = queries + (support.mean(axis=0) - queries.mean(axis=0))
    for n, mean in enumerate(means):
        mine = [x for x in queries if np.argmax([cosine(x, m) for m in means]) == n]
        mine = sorted(mine, key=lambda x: -cosine(x, mean))[:8]
        examples = [*support[labels == n], *mine]
        weights = softmax([10.0 * cosine(x, mean) for x in examples])
        rectified.append(sum(w * x for w, x in zip(weights, examples)))
    return [[5.0 * cosine(x, m) for m in rectified] for x in queries]


def laplacian_shot(support, labels, queries):
    means, rectified = means_of(support, labels), []
    queries = queries + (support.mean(axis=0) - queries.mean(axis=0))
    cosines = [[cosine(x, m) for m in means] for x in (*support, *queries)]
    for n, mean in enumerate(means):
        mine = [
            softmax(10.0 * np.array(cos))[n] * x
            for x, cos in zip((*support, *queries), cosines)
            if np.argmax(cos) == n
        ]
        rectified.append(np.mean(mine, axis=0) if mine else mean)
    unary = np.array([[squared(x, m) for m in rectified] for x in queries])
    near = [
        sorted(set(range(len(queries))) - {i}, key=lambda j: squared(x, queries[j]))[:2]
        for i, x in enumerate(queries)
    ]
    logits = -unary
    for _ in range(20):
        shares = [softmax(row) for row in logits]
        theirs = [np.sum([shares[j] for j in js], axis=0) for js in near]
        logits = -unary + 0.7 * np.array(theirs)
    return 2.0 * logits


def transport(queries, centres, between_checks=5):
    plan = np.array([[np.exp(-10.0 * squared(x, c)) for c in centres] for x in queries])
    sums = np.zeros(len(plan))
    each = len(queries) / len(centres)
    for step in range(1, 1001):
        plan = plan / plan.sum(axis=1)[:, np.newaxis]
        plan = plan * each / plan.sum(axis=0)
        before, sums = sums, plan.sum(axis=1)
        if step % between_checks == 0 and np.abs(sums - before).max() <= 1e-6:
            break
    plan = plan / plan.sum(axis=1)[:, np.newaxis]
    return plan * each / plan.sum(axis=0)


def pt_map(support, labels, queries, between_checks=5):
    support, queries = (unit(x - x.mean(axis=0)) for x in (support, queries))
    centres = np.array(means_of(support, labels))
    for _ in range(20):
        plan = transport(queries, centres, between_checks)
        for n in range(len(centres)):
            mine = support[labels == n]
            total = mine.sum(axis=0) + plan[:, n] @ queries
            estimate = total / (len(mine) + plan[:, n].sum())
            centres[n] = centres[n] + 0.2 * (estimate - centres[n])
    return 0.5 * np.log(transport(queries, centres, between_checks))


ORACLES = {f.__name__: f for f in (soft_kmeans, bd_cspn, laplacian_shot, pt_map)}


@every_method
def test_answers_are_those_of_the_papers_formulas(name):
    tasks = [make_task(seed) for seed in range(B)]
    expected = [ORACLES[name](*task[:3]) for task in tasks]
    np.testing.assert_allclose(answered(METHODS[name], tasks), expected, atol=1e-9)


def test_checking_the_transport_more_seldom_than_the_release_changes_next_to_nothing():
    tasks = [make_task(seed) for seed in range(B)]
    expected = np.exp([pt_map(*task[:3], between_checks=1) for task in tasks])
    found = np.exp(answered(METHODS["pt_map"], tasks))
    np.testing.assert_allclose(found, expected, atol=5e-5)


@every_method
def test_the_order_of_queries_and_of_support_makes_no_difference(name):
    support, labels, queries, _ = make_task()
    random = np.random.default_rng(1)
    mine, theirs = (random.permutation(len(x)) for x in (queries, support))
    once = answered(METHODS[name], [(support, labels, queries)])
    again = answered(METHODS[name], [(support[theirs], labels[theirs], queries[mine])])
    np.testing.assert_allclose(again[0], once[0, mine], rtol=1e-9, atol=1e-9)


@every_method
def test_permuted_labels_of_uneven_classes_permute_the_answers(name):
    support, labels, queries, _ = make_task()
    order = np.array([2, 0, 3, 1])
    once = answered(METHODS[name], [(support, labels, queries)])
    again = answered(METHODS[name], [(support, order[labels], queries)])
    np.testing.assert_allclose(again[0][:, order], once[0], rtol=1e-9, atol=1e-9)


@every_method
def test_a_task_is_answered_alike_whatever_else_is_in_the_batch(name):
    tasks = [make_task(seed, noise=noise) for seed, noise in ((0, 0.1), (1, 2.0))]
    together = answered(METHODS[name], tasks)
    for task, answer in zip(tasks, together):
        alone = answered(METHODS[name], [task])[0]
        np.testing.assert_allclose(alone, answer, rtol=1e-12, atol=1e-12)


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_odd_tasks_get_finite_answers(name, dtype):
    support, labels, queries, _ = make_task()
    same = np.repeat(queries[:1], 5, axis=0)
    for these in (queries[:1], queries[:2], queries[:3], same, 0 * same, support):
        logits = answered(METHODS[name], [(support, labels, these)], dtype)
        assert logits.shape == (1, len(these), N) and logits.dtype == dtype
        assert np.all(np.isfinite(logits))
    equal = np.repeat(support[:1], len(support), axis=0)
    assert np.all(np.isfinite(answered(METHODS[name], [(equal, labels, same)], dtype)))
    assert answered(METHODS[name], [(support, labels, queries[:0])]).shape == (1, 0, N)


def accuracy_of(method, tasks):
    wanted = np.stack([task[3] for task in tasks])
    return np.mean(answered(method, tasks).argmax(axis=2) == wanted)


def shifted(task, by):
    """All queries moved alike, away from the support."""
    support, labels, queries, wanted = task
    return support, labels, unit(queries + by), wanted


# Method -> tasks in which the support says little and the queries more.
CASES = {
    "soft_kmeans": lambda s: make_task(s, (1,) * 4, (15,) * 4, noise=0.7),
    "bd_cspn": lambda s: shifted(make_task(s, (2,) * 4, (15,) * 4), 0.6),
    "laplacian_shot": lambda s: make_task(s, (1,) * 4, (15,) * 4, noise=0.7),
    "pt_map": lambda s: make_task(s, (1,) * 4, (15,) * 4, noise=0.7),
}


@every_method
def test_queries_help_where_the_support_says_little(name):
    tasks = [CASES[name](seed) for seed in range(40)]
    together = accuracy_of(METHODS[name], tasks)
    nearest = np.mean(
        [
            np.argmax([cosine(x, m) for m in means_of(*task[:2])]) == label
            for task in tasks
            for x, label in zip(*task[2:])
        ]
    )
    assert together > nearest + 0.03


def test_the_transport_gives_every_class_as_many_queries_even_where_that_is_wrong():
    tasks = [make_task(seed, (5,) * 4, (27, 3, 3, 3), noise=0.2) for seed in range(5)]
    plan = np.exp(answered(PTMAP(), tasks))
    np.testing.assert_allclose(plan.sum(axis=1), 36 / N, rtol=1e-9)
    assert accuracy_of(PTMAP(), tasks) < 0.75 < accuracy_of(SoftKMeans(3.0), tasks)
