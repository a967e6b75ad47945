"""Fits feature transforms to the training classes, and checks that they fit a table.

Shapes: C training classes, D embedding size, d size after the transform.
"""

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.errors import InputError
from leo_tf.methods.transforms import Transform, raised

_NUMBERS_AT_ONCE = 2**22
# Variances within classes below this share of the largest are treated as zero.
_NO_VARIANCE = 1e-10
# Transforms that make the scatter within classes equal in all directions, and those
# that also use the scatter between classes. Of two classes, these would leave a single
# number, of length 1.
_WITHIN_CLASSES, _BETWEEN_CLASSES = ("within", "lda", "soft"), ("lda", "soft")
_FEWEST_CLASSES = 3
# Most numbers of one class's covariance, of which a task has one per example, and of
# all covariances together: 128 MiB.
_MOST_SCATTER, _MOST_NUMBERS = 2**16, 2**24


def check_can_fit(kind: str, table: FeatureTable) -> None:
    """Refuses training classes that a transform of this kind cannot be fitted to.

    Raises:
      InputError: if there are too few classes, or they have no scatter.
    """
    index = table.index
    if kind in _BETWEEN_CLASSES and len(index.class_sizes) < _FEWEST_CLASSES:
        expected = f"{_FEWEST_CLASSES} or more for --feature_transform={kind}"
        raise InputError(
            f"{index.source}: classes", expected, f"{len(index.class_sizes)}"
        )
    if kind in _WITHIN_CLASSES:
        first, scatter = 0, 0.0
        for size in index.class_sizes:  # for most data, the first decides
            mine = table.lookup(index.rows[first : first + size])
            scatter += float(np.var(np.float64(mine), axis=0).sum())
            first += size
            if scatter / len(index.class_sizes) > _NO_VARIANCE:
                return
        raise _no_scatter(index.source)


def _no_scatter(source: str) -> InputError:
    expected = "rows that differ in a class"
    return InputError(f"{source}: classes", expected, "equal ones in every class")


class Statistics:
    """Statistics of the training classes in float64. All classes count alike.

    Attributes:
      mean: [D] mean of the classes' means.
      centres: [C, D] the classes' means, without `mean`.
      variances: [D] eigenvalues of the covariance within classes, ascending.
      axes: [D, D] its eigenvectors, in columns.
    """

    def __init__(self, table: FeatureTable, power: float = 1.0):
        """Reads the features in blocks. Needs memory for [D, D] and [C, D] only.

        Raises:
          InputError: if `power` is not 1 and a feature is negative.
        """
        sizes, rows = table.index.class_sizes, table.index.rows
        labels = np.repeat(np.arange(len(sizes)), sizes)  # of `rows`
        count = max(1, _NUMBERS_AT_ONCE // table.features.shape[1])
        _check_power(power, table)

        def parts():
            for first in range(0, len(rows), count):
                mine = slice(first, first + count)
                features = raised(table.lookup(rows[mine]), power)
                yield np.float64(features.numpy()), labels[mine]

        means = np.zeros([len(sizes), table.features.shape[1]])
        for features, classes in parts():
            first = np.flatnonzero(np.diff(classes, prepend=-1))
            means[classes[first]] += np.add.reduceat(features, first)
        means /= sizes[:, np.newaxis]
        covariance = np.zeros([means.shape[1]] * 2)
        for features, classes in parts():
            apart = features - means[classes]
            apart /= np.sqrt(len(sizes) * sizes[classes])[:, np.newaxis]
            covariance += apart.T @ apart
        self.power, self.source = power, table.index.source
        self.mean = means.mean(axis=0)
        self.centres = means - self.mean
        self.variances, self.axes = np.linalg.eigh(covariance)
        self._discriminants: dict[float, tuple] = {}  # by shrinkage, whatever the dims

    @property
    def most_dims(self) -> int:
        """Returns the number of discriminants: at most C - 1, and at most D."""
        return min(len(self.centres) - 1, len(self.mean))

    def transform(
        self, kind: str, dims: int | None = None, shrinkage: float = 0.0
    ) -> Transform:
        """Returns the transform of a kind; see `configs.settings.FeatureConfig`.

        Args:
          kind: "center"; "within", which makes the covariance within classes that of
            a ball; "lda", the first `dims` linear discriminants of it; "soft", all of
            them, each times sqrt(b / (b + 1)), where b is its variance between
            classes, so that there is nothing to choose.
          dims: d of "lda", at most `most_dims`.
          shrinkage: share, 0 to 1, of the covariance within classes that is
            replaced by a ball of the same trace, as scikit-learn does.

        Raises:
          InputError: if that covariance has no inverse, or there are fewer dims.
        """
        if kind == "center":
            return Transform(self.power, self.mean, np.zeros([0, 0]))
        shrunk = (1 - shrinkage) * self.variances + shrinkage * self.variances.mean()
        if self.variances[-1] < _NO_VARIANCE:
            raise _no_scatter(self.source)
        if shrunk[0] <= _NO_VARIANCE * shrunk[-1]:
            expected = "above 0: classes have no variance in some directions"
            raise InputError("--transform_shrinkage", expected, f"{shrinkage:g}")
        white = self.axes / np.sqrt(shrunk)  # [D, D]
        if kind == "within":
            return Transform(self.power, self.mean, white)
        # Discriminants are the main axes of the classes' means, where the scatter
        # within classes is a ball.
        if shrinkage not in self._discriminants:
            means = self.centres @ white / np.sqrt(len(self.centres))
            found = np.linalg.svd(means, full_matrices=False)
            self._discriminants[shrinkage] = found[1:]
        deviations, axes = self._discriminants[shrinkage]
        count = dims if kind == "lda" and dims else self.most_dims
        if count > self.most_dims:
            expected = f"at most {self.most_dims}, of {len(self.centres)} classes"
            raise InputError("--transform_dims", expected, str(count))
        kernel = white @ axes[:count].T
        if kind == "soft":
            between = deviations[:count] ** 2
            kernel = kernel * np.sqrt(between / (between + 1))
        return Transform(self.power, self.mean, kernel)


def with_classes(transform: Transform, table: FeatureTable) -> Transform:
    """Returns the transform with the transformed classes' means and covariances.

    The covariance of a class of n rows is divided by n - 1, as usual. A class of a
    single row has none.

    Raises:
      InputError: see `check_can_hold`.
    """
    index, size = table.index, transform.output_size
    count, most = len(index.class_sizes), check_can_hold(table, size)  # C, R
    centres, scatter, first = np.zeros([count, size]), np.zeros([count, most, size]), 0
    for c, rows in enumerate(index.class_sizes):
        mine = table.lookup(index.rows[first : first + rows])
        features = np.float64(transform(tf.cast(mine, tf.float64)).numpy())
        first += rows
        centres[c] = features.mean(axis=0)
        apart = (features - centres[c]) / np.sqrt(max(1, rows - 1))
        # A triangle's few rows have the same products as all rows.
        triangle = apart if rows <= size else np.linalg.qr(apart, mode="r")
        scatter[c, : len(triangle)] = triangle
    return transform._replace(centres=centres, scatter=scatter.reshape([-1, size]))


def check_can_hold(table: FeatureTable, size: int) -> int:
    """Checks the memory for the classes' covariances of features of `size` numbers.

    Returns:
      R, the largest number of rows that a covariance is kept as.

    Raises:
      InputError: if a class's covariance would take more than `_MOST_SCATTER` numbers,
        or all together more than `_MOST_NUMBERS`.
    """
    index = table.index
    count, most = len(index.class_sizes), min(int(index.class_sizes.max()), size)
    if most * size > _MOST_SCATTER or count * most * size > _MOST_NUMBERS:
        where = f"{index.source}: covariances of the training classes"
        expected = (
            f"at most {_MOST_SCATTER:,} numbers per class, {_MOST_NUMBERS:,} in all"
        )
        hint = (
            "--feature_transform=lda keeps fewer dimensions, --transform_dims of them."
        )
        received = f"{count:,} of {most:,} x {size:,}"
        raise InputError(where, expected, received, hint)
    return most


def check_fits(transform: Transform, table: FeatureTable) -> None:
    """Raises an InputError if the transform does not fit a table of features."""
    size = table.features.shape[1]
    if size != transform.size:
        where = f"{table.index.source}: `embeddings`"
        expected = f"D = {transform.size}, as the run's feature transform"
        raise InputError(where, expected, f"D = {size}")
    _check_power(transform.power, table)


def _check_power(power: float, table: FeatureTable) -> None:
    rows, count = table.index.rows, max(1, _NUMBERS_AT_ONCE // table.shape[1])
    parts = (rows[first : first + count] for first in range(0, len(rows), count))
    if power != 1.0 and any(
        float(tf.reduce_min(table.lookup(each))) < 0 for each in parts
    ):
        where, expected = f"{table.index.source}: `embeddings`", "none below 0"
        hint = "Leave out --feature_power: negative numbers have no powers."
        raise InputError(where, expected, "negative numbers", hint)
