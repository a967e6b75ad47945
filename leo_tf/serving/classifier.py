"""A classifier for your labels from an exported model, by scikit-learn's conventions.

    classifier = Classifier("exported").fit(features, ["cat", "dog", "cat"])
    classifier.predict(new_features)

Only TensorFlow and NumPy are needed, and for a model on a server NumPy alone; none of
the code that trained the model.

Shapes: S support examples, M queries, N classes, D features, P numbers a class.
"""

import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from leo_tf.serving.inputs import checked_features, checked_labels, fit_together
from leo_tf.serving.models import Source, connect, refused

# Of what one request may hold; 10 MB as JSON. More queries go in several requests.
_NUMBERS_PER_REQUEST = 2**19
_SAVED = ("classifier", "classes", "support", "support_labels", "support_health")


class NotFittedError(ValueError, AttributeError):
    """The classifier has not seen any labels yet."""


class Classifier:
    """Adapts an exported model to labelled examples, then classifies.

    The examples are kept, so that `partial_fit` and `remove_class` go on from them: the
    model adapts anew to all, which takes as long as `fit`. A call that is refused is a
    ValueError that names the field, what was expected and what was received, and
    changes nothing.

    Args:
      source: a directory of versions that `--mode=export` wrote (the newest at the time
        is used), one version, or the URL of a server ("http://host:8501", or with its
        model, "http://host:8501/v1/models/leo").
      timeout: seconds until a server must have answered.

    Attributes:
      classes_: [N] the labels, sorted.
      n_features_in_: D.
      classifier_: [N, P] what the model made of the examples.
      support_, support_labels_: [S, D] and [S], the examples.
      support_loss_, support_accuracy_: of the classifier on them.
    """

    def __init__(self, source: Source, timeout: float = 60.0):
        self.source = source
        self.timeout = timeout

    def fit(self, features: ArrayLike, labels: ArrayLike) -> "Classifier":
        """Adapts to these examples, and forgets any before them.

        Args:
          features: [S, D] numbers.
          labels: [S] strings, integers, booleans, bytes or dates; two different ones
            at least, each with any number of examples.
        """
        features = checked_features(features)
        return self._adapt(features, checked_labels(labels, len(features)))

    def partial_fit(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        classes: Sequence[Any] | np.ndarray | None = None,
    ) -> "Classifier":
        """Adds examples, of known classes or new ones, to those seen before.

        If `classes` are given, there may be no other labels. A class is known once it
        has an example. Features and labels are those of `fit`.
        """
        features = checked_features(features, getattr(self, "n_features_in_", None))
        labels = checked_labels(labels, len(features))
        if hasattr(self, "support_"):
            features = np.concatenate([self.support_, features])
            labels = checked_labels([*self.support_labels_, *labels], len(features))
        if classes is not None:
            unknown = np.setdiff1d(labels, checked_labels(classes, len(classes)))
            if unknown.size:
                raise refused("labels", "only labels among `classes`", unknown[0])
        return self._adapt(features, labels)

    def remove_class(self, label: Any) -> "Classifier":
        """Forgets a class; the examples of the others, two at least, stay."""
        self._check_fitted()
        keep = self.support_labels_ != label
        if np.all(keep):
            expected = f"one of {', '.join(map(str, self.classes_))}"
            raise refused("label", expected, repr(label))
        return self._adapt(self.support_[keep], self.support_labels_[keep])

    def predict(self, features: ArrayLike) -> np.ndarray:
        """Returns [M] the label of each row of features [M, D]."""
        found = self._answers(features)["classes"]
        return self.classes_[found]

    def predict_proba(self, features: ArrayLike) -> np.ndarray:
        """Returns [M, N] probabilities, in the order of `classes_`."""
        return self._answers(features)["probabilities"]

    def decision_function(self, features: ArrayLike) -> np.ndarray:
        """Returns [M, N] logits; of two classes [M], the second's less the first's."""
        logits = self._answers(features)["logits"]
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def score(
        self,
        features: ArrayLike,
        labels: ArrayLike,
        sample_weight: Sequence[float] | np.ndarray | None = None,
    ) -> float:
        """Returns the accuracy, each row counted by its weight."""
        predicted = self.predict(features)
        labels = checked_labels(labels, len(predicted))
        return float(np.average(predicted == labels, weights=sample_weight))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the adapted classifier and its examples as an .npz file.

        It holds plain arrays, no pickle, and not the model: `load` asks for that.
        """
        self._check_fitted()
        health = np.array([self.support_loss_, self.support_accuracy_])
        fitted = self.classifier_, self.classes_, self.support_, self.support_labels_
        arrays: dict[str, Any] = dict(zip(_SAVED, (*fitted, health)))
        target = pathlib.Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], source: Source, timeout: float = 60.0
    ) -> "Classifier":
        """Returns what `save` wrote, for use with the model at `source`."""
        self = cls(source, timeout)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in _SAVED]
        except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
            arrays = None
        if arrays is None or not fit_together(arrays):
            raise refused(str(path), "a file written by Classifier.save", "another")
        return self._keep(*arrays)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments of the constructor, as scikit-learn asks for them."""
        return {"source": self.source, "timeout": self.timeout}

    def set_params(self, **params: Any) -> "Classifier":
        """Changes arguments of the constructor."""
        for name, value in params.items():
            if name not in self.get_params():
                raise refused("params", "source or timeout", repr(name))
            setattr(self, name, value)
        self.__dict__.pop("_model", None)
        return self

    def __repr__(self) -> str:
        return f"Classifier({self.source!r}, timeout={self.timeout!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the loaded model, which is found again by `source`."""
        return {name: each for name, each in vars(self).items() if name != "_model"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks, so it is there.
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        tags = ClassifierTags()
        return Tags("classifier", TargetTags(required=True), classifier_tags=tags)

    def _adapt(self, features: np.ndarray, labels: np.ndarray) -> "Classifier":
        # A new fit is a new look for the newest version.
        model = connect(self.source, self.timeout)
        classes, codes = np.unique(labels, return_inverse=True)
        adapted = model("adapt", {"support": features, "labels": codes})
        health = adapted["support_loss"], adapted["support_accuracy"]
        self._model = model
        return self._keep(adapted["classifier"], classes, features, labels, health)

    def _keep(self, *arrays: Any) -> "Classifier":
        """Takes what `_SAVED` names, in its order."""
        self.classifier_, self.classes_, self.support_, self.support_labels_ = arrays[
            :4
        ]
        self.support_loss_, self.support_accuracy_ = map(float, arrays[4])
        self.n_features_in_ = self.support_.shape[1]
        return self

    def _answers(self, features: ArrayLike) -> dict[str, np.ndarray]:
        self._check_fitted()
        features = checked_features(features, self.n_features_in_)
        size = max(1, _NUMBERS_PER_REQUEST // self.n_features_in_)
        rows = np.zeros([0, len(self.classes_)], np.float32)
        # Of no queries, whose columns JSON could not tell.
        none: dict[str, np.ndarray] = {"probabilities": rows, "logits": rows}
        none["classes"] = np.zeros(0, np.int64)
        answers = [none]
        for start in range(0, len(features), size):
            if not hasattr(self, "_model"):
                self._model = connect(self.source, self.timeout)
            queries = features[start : start + size]
            request = {"classifier": self.classifier_, "queries": queries}
            answers.append(self._model("predict", request))
        return {
            name: np.concatenate([answer[name] for answer in answers]) for name in none
        }

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(
                "Classifier: expected `fit` first, received no labels."
            )
