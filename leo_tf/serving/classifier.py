"""A classifier for your labels from an exported model, by scikit-learn's conventions.

    classifier = Classifier("exported").fit(features, ["cat", "dog", "cat"])
    classifier.predict(new_features)

    classifier.fit(["cat.jpg", "dog.png"], ["cat", "dog"])  # if it takes pictures

`Classifier("lda")`, "ridge" and "centroid" need no model.

An exported model needs TensorFlow and NumPy. A model on a server and the closed forms
need NumPy only. The training code is never needed.

Shapes: S support examples, M queries, N classes, D features, P numbers per class.
"""

import contextlib
import io
import os
import pathlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from leo_tf.errors import RequestError, refused, without_secrets
from leo_tf.serving.closed_forms import ClosedForm
from leo_tf.serving.inputs import (
    check_feature_names,
    check_same_embedding,
    checked_features,
    checked_labels,
    checked_share,
    feature_names,
    fit_together,
    with_unknown,
)
from leo_tf.serving.models import LocalModel, Model, Source, connect
from leo_tf.serving.pictures import are_pictures, embedded

# Limit of one request, 10 MB of JSON. More queries are sent in several requests.
_NUMBERS_PER_REQUEST = 2**19
_OF_MODEL = frozenset(["source", "timeout", "headers", "embedding"])
_PARAMETERS = "source", "timeout", "headers", "unknown", "false_alarms", "embedding"
# Outputs of an export that was fitted on validation episodes: the share of queries less
# like any class, and for each class one minus the least coverage that includes it.
_FITTED = "known", "plausible"
_STEPS, _ROUNDING = 200, 1e-6
_NAMES = "feature_names"  # saved only if `fit` saw names
_ORIGIN = "model"  # `model` of the adapting model or -1, and whether of pictures
_ATTEMPTS = 3
_SAVED = ("classifier", "classes", "support", "support_labels", "support_health")


class NotFittedError(ValueError, AttributeError):
    """The classifier has not seen any labels yet."""


class Classifier:
    """Adapts an exported model to labelled examples, then classifies.

    It keeps the examples. `partial_fit` and `remove_class` adapt the model anew to all
    of them, which takes as long as `fit`. A refused call raises a ValueError with the
    field, the expected and the received value, and changes nothing.

    Args:
      source: a directory of versions that `--mode=export` wrote (`fit` takes the newest
        one), one version, or the URL of a server ("http://host:8501", or with its
        model, "http://host:8501/v1/models/leo"). Or "centroid", "ridge" or "lda", which
        need no model: see `closed_forms.py`.
      timeout: seconds to wait for a server's answer.
      headers: name -> text, sent to a server with every request, such as
        {"Authorization": "Bearer ..."}. "http://user:password@host" authenticates too.
        Messages, `repr` and `save` omit all of these, but a pickle has them.
      unknown: label that `predict` returns for a row that looks like no class, of the
        classes' kind, such as "other" or -1; None to always return a class. It needs
        an export of a run with validation classes.
      false_alarms: share of rows of known classes, 0 to 1, that may get the label
        `unknown`, as measured on validation episodes, in steps of 0.005. `save` omits
        both.
      embedding: directory of the features that you will give, as --mode=embed wrote it,
        or its embedding.json: a model of features by another backbone is refused. None
        to check sizes only.

    Attributes:
      classes_: [N] the labels, sorted.
      n_features_in_: D.
      feature_names_in_: [D] names of the columns, if `fit` saw a DataFrame with text
        names. Later ones must have the same names in this order.
      classifier_: [N, P] the adapted classifier.
      support_, support_labels_: [S, D] and [S], the examples.
      support_loss_, support_accuracy_: loss and accuracy on the examples.
    """

    _identity: int | None = None  # the output `model` of the model that adapted
    _of_pictures = False  # the model embedded the examples

    def __init__(
        self,
        source: Source,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        unknown: Any = None,
        false_alarms: float = 0.05,
        embedding: Source | None = None,
    ):
        self.source = source
        self.timeout = timeout
        self.headers = headers
        self.unknown = unknown
        self.false_alarms = false_alarms
        self.embedding = embedding

    def fit(self, features: ArrayLike, labels: ArrayLike) -> "Classifier":
        """Adapts to these examples, and forgets earlier ones.

        Args:
          features: [S, D] numbers; or S pictures, if the model takes any: paths of JPEG
            or PNG files, their bytes, or Pillow images. All methods take either.
          labels: [S] strings, whole numbers, booleans, bytes or dates (of `datetime`,
            pandas or NumPy; returned as NumPy's). At least two classes, each with any
            number of examples.
        """
        model, names = self._newest(), feature_names(features)
        of_pictures = are_pictures(features)
        features = _rows(model, features)
        labels = checked_labels(labels, len(features))
        return self._adapt(model, features, labels, names, of_pictures)

    def partial_fit(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[Any] | np.ndarray | None = None,
    ) -> "Classifier":
        """Adds examples of known or new classes.

        If `classes` are given, other labels are refused. A class is known once it has
        an example. Features and labels are as for `fit`.
        """
        model, is_first = self._newest(), not hasattr(self, "support_")
        of_pictures = self._of_pictures or are_pictures(features)
        if is_first:
            names, features = feature_names(features), _rows(model, features)
            labels = checked_labels(labels, len(features))
        else:
            names, more = self._names(), self._checked(model, features)
            labels = checked_labels(labels, len(more), self.classes_)
            features = np.concatenate([self.support_, more])
            labels = checked_labels([*self.support_labels_, *labels], len(features))
        if classes is not None:
            known = checked_labels(classes, len(classes), labels)
            unknown = np.setdiff1d(labels, known).tolist()
            if unknown:
                raise refused("labels", "only labels among `classes`", repr(unknown[0]))
        return self._adapt(model, features, labels, names, of_pictures, is_first)

    def remove_class(self, label: Any) -> "Classifier":
        """Forgets a class. At least two others must remain."""
        self._check_fitted()
        removed = checked_labels([label], 1, self.classes_)
        keep = self.support_labels_ != removed
        if np.all(keep):
            expected = f"one of {', '.join(map(repr, self.classes_.tolist()))}"
            raise refused("label", expected, repr(label))
        given = self.support_[keep], self.support_labels_[keep], self._names()
        model = self._newest()
        return self._adapt(model, *given, self._of_pictures, is_first=False)

    def predict(self, features: ArrayLike) -> np.ndarray:
        """Returns [M] labels of the rows of features [M, D], or `unknown`."""
        answers = self._answers(features)
        if self.unknown is None:
            return self.classes_[answers["classes"]]
        every = with_unknown(self.classes_, self.unknown)  # [N + 1]
        share = checked_share("false_alarms", self.false_alarms)
        least = np.floor(share * _STEPS + _ROUNDING) / _STEPS
        is_unknown = self._fitted(answers, "known") < least - _ROUNDING
        return every[np.where(is_unknown, len(self.classes_), answers["classes"])]

    def predict_set(
        self, features: ArrayLike, coverage: float = 0.9
    ) -> list[np.ndarray]:
        """Returns for each row the labels that it may have: sorted, at least one.

        In new episodes like those of validation, with the same way and shot, they
        contain the right label with a probability of `coverage` or more. It needs an
        export of a run with validation classes.

        Source: conformal prediction, calibrated over episodes; see
        `leo_tf.evaluation.confidence`.
        """
        share = checked_share("coverage", coverage)
        answers = self._answers(features)
        left_out = np.floor((1 - share) * _STEPS + _ROUNDING) / _STEPS
        chosen = self._fitted(answers, "plausible") >= left_out - _ROUNDING
        chosen[np.arange(len(chosen)), answers["classes"]] = True
        return [self.classes_[row] for row in chosen]

    def predict_proba(self, features: ArrayLike) -> np.ndarray:
        """Returns [M, N] probabilities, in the order of `classes_`."""
        return self._answers(features)["probabilities"]

    def decision_function(self, features: ArrayLike) -> np.ndarray:
        """Returns [M, N] logits; for two classes [M], the second minus the first."""
        logits = self._answers(features)["logits"]
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def score(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        sample_weight: Sequence[float] | np.ndarray | None = None,
    ) -> float:
        """Returns the accuracy, with rows weighted by `sample_weight`."""
        predicted = self.predict(features)
        labels = checked_labels(labels, len(predicted), self.classes_)
        return float(np.average(predicted == labels, weights=sample_weight))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the adapted classifier and its examples as an .npz file.

        It has plain arrays and no pickle. It omits the model, which `load` takes.
        """
        self._check_fitted()
        diagnostics = np.array([self.support_loss_, self.support_accuracy_])
        fitted = self.classifier_, self.classes_, self.support_, self.support_labels_
        arrays: dict[str, Any] = dict(zip(_SAVED, (*fitted, diagnostics)))
        origin = -1 if self._identity is None else self._identity
        arrays[_ORIGIN] = np.array([origin, self._of_pictures], np.int64)
        if (names := self._names()) is not None:
            arrays[_NAMES] = names.astype(str)
        target = pathlib.Path(path)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
            beside.replace(target)
        except OSError as error:  # names the file that the user named
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        source: Source,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "Classifier":
        """Restores a classifier that `save` wrote, for the model at `source`.

        Other arguments are those of the constructor.
        """
        self = cls(source, timeout, headers, **options)
        content = io.BytesIO(pathlib.Path(path).read_bytes())
        try:
            with np.load(content, allow_pickle=False) as found:
                arrays = [found[name] for name in _SAVED]
                names = found[_NAMES].astype(object) if _NAMES in found else None
                origin = found[_ORIGIN].tolist() if _ORIGIN in found else [-1, 0]
            identity, of_pictures = map(int, origin)
        except Exception:  # damage may raise anything
            arrays, names = None, None
        if arrays is None or not fit_together(arrays, names):
            expected = "a file written by Classifier.save"
            raise refused(str(path), expected, "another file")
        self._identity = None if identity < 0 else identity
        self._of_pictures = bool(of_pictures)
        return self._keep(*arrays, names)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments of the constructor, for scikit-learn."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> "Classifier":
        """Changes arguments of the constructor."""
        for name, value in params.items():
            if name not in _PARAMETERS:
                raise refused("params", f"one of {', '.join(_PARAMETERS)}", repr(name))
            setattr(self, name, value)
        if not _OF_MODEL.isdisjoint(params):
            self.__dict__.pop("_adapted", None)
        return self

    def __repr__(self) -> str:
        source = self.source
        if isinstance(source, str):
            source = without_secrets(source)
        headers = ", headers=***" if self.headers else ""
        unknown = ""
        if self.unknown is not None:
            unknown = f", unknown={self.unknown!r}, false_alarms={self.false_alarms!r}"
        if self.embedding is not None:
            unknown += f", embedding={self.embedding!r}"
        return f"Classifier({source!r}, timeout={self.timeout!r}{headers}{unknown})"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the loaded model, which `source` can restore."""
        return {name: each for name, each in vars(self).items() if name != "_adapted"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn calls this, so it is installed.
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        tags = ClassifierTags()
        return Tags("classifier", TargetTags(required=True), classifier_tags=tags)

    def _newest(self) -> Model:
        """Returns the model; each fit looks for the newest version."""
        model = connect(self.source, self.timeout, self.headers)
        if self.embedding is not None and not isinstance(model, ClosedForm):
            check_same_embedding(self.embedding, model.embedding())
        return model

    def _adapt(
        self,
        model: Model,
        features: np.ndarray,
        labels: np.ndarray,
        names: np.ndarray | None,
        of_pictures: bool,
        is_first: bool = True,
    ) -> "Classifier":
        """Adapts to examples: to those of a fitted classifier if not `is_first`."""
        classes, codes = np.unique(labels, return_inverse=True)
        if self.unknown is not None:
            with_unknown(classes, self.unknown)
        adapted = model("adapt", {"support": features, "labels": codes})
        identity = _identity(adapted)
        if of_pictures and not is_first and identity != self._identity:
            received = "another, which embeds them otherwise: give them to `fit` again"
            raise refused("source", "the model that embedded the pictures", received)
        beyond = model.beyond_test(codes) if isinstance(model, LocalModel) else ""
        if beyond:
            warnings.warn(beyond, stacklevel=3)
        diagnostics = adapted["support_loss"], adapted["support_accuracy"]
        made = adapted["classifier"].astype(np.float32)  # JSON may have whole numbers
        self._keep(made, classes, features, labels, diagnostics, names)
        self._identity, self._of_pictures = identity, of_pictures
        self._adapted = model, made, identity  # at once, since other threads may ask
        return self

    def _keep(self, *arrays: Any) -> "Classifier":
        """Stores arrays in the order of `_SAVED`, then names of features or None."""
        self.classifier_, self.classes_, self.support_, self.support_labels_ = arrays[
            :4
        ]
        self.support_loss_, self.support_accuracy_ = map(float, arrays[4])
        self.n_features_in_ = self.support_.shape[1]
        self.__dict__.pop("feature_names_in_", None)
        if arrays[5] is not None:
            self.feature_names_in_ = arrays[5]
        return self

    def _names(self) -> np.ndarray | None:
        return getattr(self, "feature_names_in_", None)

    def _checked(self, model: Model, features: ArrayLike) -> np.ndarray:
        """Returns features [rows, D], checked against those of `fit`."""
        check_feature_names(feature_names(features), self._names())
        return _rows(model, features, self.n_features_in_)

    def _answers(self, features: ArrayLike) -> dict[str, np.ndarray]:
        """Returns the answers of the model that the classifier was adapted by.

        If `source` has another model by now, adapts to the examples again, by that.

        Raises:
          ConnectionError: if its answers come from several models, as while the
            replicas of a server change one after the other.
        """
        self._check_fitted()
        for _ in range(_ATTEMPTS):
            model, classifier, identity = self._current()
            rows = self._checked(model, features)
            found = _asked(model, classifier, identity, rows)
            if found is not None:
                return found
            self._adapt_again()
        expected, received = "answers from one model", "answers from several"
        raise ConnectionError(f"source: expected {expected}, received {received}.")

    def _current(self) -> tuple[Model, np.ndarray, int | None]:
        """Returns the model, the classifier, and the `model` that it belongs to."""
        if "_adapted" not in vars(self):  # after `load`, in a pickle
            if self._identity is None:
                self._adapt_again()
            else:
                self._adapted = self._newest(), self.classifier_, self._identity
        return self._adapted

    def _adapt_again(self) -> None:
        given = self.support_, self.support_labels_, self._names()
        self._adapt(self._newest(), *given, self._of_pictures, is_first=False)

    def _fitted(self, answers: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """Returns an output that was fitted on validation episodes."""
        if not len(answers["classes"]):
            return answers["probabilities" if name == "plausible" else "classes"]
        if name not in answers:
            expected = "an export that was fitted on validation episodes"
            raise refused("source", expected, "a model that was not")
        return np.asarray(answers[name])

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(
                "Classifier: expected `fit` first, received no labels."
            )


def _rows(model: Model, values: ArrayLike, size: int | None = None) -> np.ndarray:
    """Returns features [rows, D] as given, or computed from pictures."""
    pictures: Any = values
    return checked_features(
        embedded(model, pictures) if are_pictures(values) else values, size
    )


def _identity(answer: Mapping[str, Any]) -> int | None:
    """Returns the output `model`; None if a server of another program has none."""
    found = answer.get("model")
    return None if found is None else int(found)


def _asked(
    model: Model, classifier: np.ndarray, identity: int | None, features: np.ndarray
) -> dict[str, np.ndarray] | None:
    """Returns the model's answers; None if another model answers than `identity`."""
    size = max(1, _NUMBERS_PER_REQUEST // features.shape[1])
    rows = np.zeros([0, len(classifier)], np.float32)
    # For no queries, because an empty list in JSON has no columns.
    none: dict[str, np.ndarray] = {"probabilities": rows, "logits": rows}
    none["classes"] = np.zeros(0, np.int64)
    answers = []
    for start in range(0, len(features), size):
        queries = features[start : start + size]
        try:
            found = model("predict", {"classifier": classifier, "queries": queries})
        except RequestError as error:
            if str(error).startswith("classifier: expected shape"):
                return None
            raise
        if _identity(found) != identity:
            return None
        answers.append(found)
    several = answers or [none]
    names = [name for name in (*none, *_FITTED) if name in several[0]]
    return {n: np.concatenate([each[n] for each in several]) for n in names}
