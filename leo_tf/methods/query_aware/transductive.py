"""Transductive methods, which also learn from a task's queries.

Each scores all tasks of a batch at once. Transforms that the papers apply first, such
as PT-MAP's power, are `--feature_power` and `--feature_transform` here.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size, E = S + M examples of both kinds, R queries that are looked at.
"""

import numpy as np
import tensorflow as tf

from leo_tf.model.learner import QueryAware

# Factor of cosines before a softmax of them: epsilon of arXiv:1911.10713, section 4.
_COSINE_SCALE = 10.0
_MOST_PSEUDO_LABELLED = 8  # Z of BD-CSPN: queries per class to learn from
# Constants of LaplacianShot. The release's `knn` of 3 counts the query itself.
_NEIGHBOURS, _BOUND_STEPS = 2, 20
# Of PT-MAP: lambda, alpha and epochs of the release's `test_standard.py`, and when its
# Sinkhorn iterations end: row sums change by no more than this, or at the last. The
# change is looked at once in so many iterations.
_TRANSPORT_SCALE, _CENTRE_RATE, _CENTRE_STEPS = 10.0, 0.2, 20
_TOLERANCE, _MOST_SINKHORN_STEPS, _BETWEEN_CHECKS = 1e-6, 1000, 5


class SoftKMeans(QueryAware):
    """Class means refined once by soft assignments of the queries.

    A query's weight for a class is softmax(-sharpness * squared distance). It counts in
    the refined mean with this weight.

    Args:
      sharpness: factor of squared distances in the assignments.
      scale: factor of all scores; changes confidence, not answers.

    Source: Ren et al., 2018 (arXiv:1803.00676), equation 3, one step as there; its
    features are trained for a sharpness of 1, and of any length.
    """

    def __init__(self, sharpness: float, scale: float = 1.0):
        self.sharpness, self.scale = sharpness, scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] minus squared distances to refined means, times scale."""
        distances = _distances(queries, _means(support, targets))
        shares = tf.nn.softmax(-self.sharpness * distances)  # [B, M, N]
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        refined = _means(examples, tf.concat([targets, shares], axis=1))
        return -self.scale * _distances(queries, refined)


class BDCSPN(QueryAware):
    """Nearest centroid by cosine, after both biases of the means are reduced.

    All queries are shifted so that their mean is the support's. Of the queries that
    nearest centroid assigns to a class, the 8 most similar join its support. Each
    example is weighted by softmax(10 * cosine) with the class's first mean.

    Args:
      scale: factor of all cosines; changes confidence, not answers.

    Source: Liu et al., 2020 (arXiv:1911.10713), equations 3 to 6, with Z and epsilon of
    its section 4.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] cosines with the rectified means, times scale."""
        means, queries = _means(support, targets), _shifted(queries, support)
        cosines = _cosines(queries, means)  # [B, M, N]
        none = tf.constant(float("-inf"), cosines.dtype)
        mine = tf.where(_largest(cosines) > 0, cosines, none)
        most = tf.minimum(_MOST_PSEUDO_LABELLED, tf.shape(queries)[1])
        found, rows = tf.math.top_k(tf.linalg.matrix_transpose(mine), most)  # [B, N, R]
        joined = tf.gather(queries, rows, batch_dims=1)  # [B, N, R, D]
        known = tf.where(targets > 0, _cosines(support, means), none)  # [B, S, N]
        by_class = [tf.linalg.matrix_transpose(known), found]
        weights = tf.nn.softmax(_COSINE_SCALE * tf.concat(by_class, axis=2))
        count = tf.shape(support)[1]
        rectified = tf.matmul(weights[..., :count], support)  # [B, N, D]
        rectified += tf.einsum("bnr,bnrd->bnd", weights[..., count:], joined)
        return self.scale * _cosines(queries, rectified)


class LaplacianShot(QueryAware):
    """Assignments close to class means, and alike for neighbouring queries.

    Means are rectified first: queries are shifted to the support's mean, and each
    example is weighted by its softmax(10 * cosine) for the class that nearest centroid
    assigns it to.

    Args:
      weight: weight of the neighbours, lambda.
      scale: factor of all scores; changes confidence, not answers.

    Source: Ziko et al., 2020 (arXiv:2006.15486), equation 12, and `proto_rect` of the
    release. There the 20 steps end early where the energy has settled; and a class to
    which no example is assigned is lost, while here it keeps its mean.
    """

    def __init__(self, weight: float, scale: float = 1.0):
        self.weight, self.scale = weight, scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] log-assignments up to a constant, times scale."""
        queries = _shifted(queries, support)
        rectified = self._rectified(support, targets, queries)
        unary = -_distances(queries, rectified)  # [B, M, N]
        neighbours = _neighbours(queries)  # [B, M, R]
        logits = unary
        for _ in range(_BOUND_STEPS):
            shares = tf.nn.softmax(logits)
            theirs = tf.gather(shares, neighbours, batch_dims=1)  # [B, M, R, N]
            logits = unary + self.weight * tf.reduce_sum(theirs, axis=2)
        return self.scale * logits

    def _rectified(self, support, targets, queries):
        means = _means(support, targets)
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        cosines = _cosines(examples, means)
        members = _largest(cosines)  # [B, E, N]
        weights = members * tf.nn.softmax(_COSINE_SCALE * cosines)
        counts = tf.reduce_sum(members, axis=1)[..., tf.newaxis]  # [B, N, 1]
        sums = tf.matmul(weights, examples, transpose_a=True)
        return tf.where(counts > 0, tf.math.divide_no_nan(sums, counts), means)


class PTMAP(QueryAware):
    """Class centres that move towards the queries that optimal transport assigns.

    The transport assigns equally many queries to every class. If the queries are
    unbalanced, it is wrong by design. A single query gets no information.

    Args:
      scale: factor of all scores; changes confidence, not answers.

    Source: Hu et al., 2021 (arXiv:2006.03806), algorithm 1, with the numbers of the
    release and its `centerDatas`: support and queries each lose their own mean.
    Sinkhorn's iterations end for each task by itself, and after each fifth only.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns [B, M, N] logarithms of the transport's shares, times scale."""
        support, queries = _centred(support), _centred(queries)
        examples = tf.concat([support, queries], axis=1)  # [B, E, D]
        centres = _means(support, targets)
        for _ in range(_CENTRE_STEPS):
            shares = tf.concat([targets, _transport(queries, centres)], axis=1)
            centres += _CENTRE_RATE * (_means(examples, shares) - centres)
        plan = _transport(queries, centres)  # [B, M, N]
        smallest = np.finfo(plan.dtype.as_numpy_dtype).tiny
        return self.scale * tf.math.log(tf.maximum(plan, smallest))


@tf.function(autograph=False)  # eagerly it would take minutes
def _transport(queries, centres):
    """Returns [B, M, N] shares: rows sum to 1, and all columns to the same."""
    costs = _TRANSPORT_SCALE * _distances(queries, centres)
    least = tf.reduce_min(costs, axis=2, keepdims=True)  # leaves the plan unchanged
    kernel = tf.exp(least - costs)  # the plan is rows * kernel * columns
    each = tf.cast(tf.shape(costs)[1] / tf.shape(costs)[2], costs.dtype)

    def step(totals, moves):  # totals: sums of the kernel's rows times columns
        seen = [totals]
        for _ in range(_BETWEEN_CHECKS):
            columns = each / tf.matmul(kernel, 1.0 / seen[-1], transpose_a=True)
            seen.append(tf.matmul(kernel, columns))  # [B, M, 1]
        change = tf.abs(seen[-1] / seen[-2] - seen[-2] / seen[-3])  # of the row sums
        more = tf.reduce_max(change, axis=1, keepdims=True) > _TOLERANCE  # [B, 1, 1]
        return tf.where(moves, seen[-1], totals), moves & more

    totals = tf.reduce_sum(kernel, axis=2, keepdims=True)  # [B, M, 1]
    totals, _ = tf.while_loop(
        lambda totals, moves: tf.reduce_any(moves),
        step,
        (totals, tf.ones_like(totals[:, :1], tf.bool)),
        maximum_iterations=_MOST_SINKHORN_STEPS // _BETWEEN_CHECKS,
    )
    kernel /= totals
    return kernel * (each / tf.reduce_sum(kernel, axis=1, keepdims=True))


def _means(examples, shares):
    """Returns [B, N, D] means of examples [B, E, D], weighted by shares [B, E, N]."""
    counts = tf.reduce_sum(shares, axis=1)[..., tf.newaxis]  # [B, N, 1]
    return tf.matmul(shares, examples, transpose_a=True) / counts


def _distances(rows, others):
    """Returns [B, M, N] squared distances of rows [B, M, D] and [B, N, D]."""
    products = tf.matmul(rows, others, transpose_b=True)
    squares = tf.reduce_sum(others**2, axis=2)[:, tf.newaxis]  # [B, 1, N]
    return tf.reduce_sum(rows**2, axis=2, keepdims=True) + squares - 2.0 * products


def _cosines(rows, others):
    """Returns [B, M, N] cosines of rows [B, M, D] and others [B, N, D]."""
    rows, others = (tf.math.l2_normalize(x, axis=2) for x in (rows, others))
    return tf.matmul(rows, others, transpose_b=True)


def _largest(scores):
    """Returns [B, M, N]: 1 at the largest score of each row, else 0."""
    return tf.one_hot(
        tf.argmax(scores, axis=2), tf.shape(scores)[2], dtype=scores.dtype
    )


def _shifted(queries, support):
    """Returns queries [B, M, D], moved so that their mean is the support's."""
    means = (tf.reduce_mean(x, axis=1, keepdims=True) for x in (support, queries))
    target, mine = means
    return queries + (target - mine)


def _centred(rows):
    """Returns [B, M, D] minus their mean, scaled to length 1."""
    rows -= tf.reduce_mean(rows, axis=1, keepdims=True)
    return tf.math.l2_normalize(rows, axis=2)


def _neighbours(queries):
    """Returns [B, M, R], the R nearest others of each query; R is at most 2."""
    likeness = -_distances(queries, queries)  # [B, M, M]
    none = tf.fill(tf.shape(likeness)[:2], tf.constant(float("-inf"), queries.dtype))
    most = tf.minimum(_NEIGHBOURS, tf.maximum(tf.shape(queries)[1] - 1, 0))
    return tf.math.top_k(tf.linalg.set_diag(likeness, none), most)[1]
