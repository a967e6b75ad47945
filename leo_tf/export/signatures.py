"""The functions of an export: adapt, predict, classify, embed; also for pictures.

Shapes: S support examples, M queries, N way, D embedding size, Z latent size, P numbers
of a class in the classifier, and its mean if the score is a cosine. Only D, Z and P are
the same in all requests.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from leo_tf.evaluation.confidence import Confidence
from leo_tf.export import request_checks as checks
from leo_tf.export.pictures import Encoder, check_pictures, features_of
from leo_tf.export.request_checks import Limits, Request
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.transformed import beside
from leo_tf.model.learner import AnyLearner, Learner, UnevenAdapted, uneven_adapt

# Field -> type and shape, for export.json and `_spec`.
_FIELDS = {
    "support": ("float32", "S", "D"),
    "labels": ("int64", "S"),
    "queries": ("float32", "M", "D"),
    "classifier": ("float32", "N", "P"),
    "way": ("int64",),
    "support_loss": ("float32",),
    "support_accuracy": ("float32",),
    "model": ("int64",),
    "probabilities": ("float32", "M", "N"),
    "logits": ("float32", "M", "N"),
    "classes": ("int64", "M"),
    "known": ("float32", "M"),
    "plausible": ("float32", "M", "N"),
    "images": ("string", "M"),
    "support_images": ("string", "S"),
    "query_images": ("string", "M"),
    "features": ("float32", "M", "D"),
    "latents_before": ("float32", "N", "Z"),
    "latents_after": ("float32", "N", "Z"),
}
_ANSWERS = ("probabilities", "logits", "classes")
# Answers of models with a fitted `Confidence`; see `_Parts._answers`.
_FITTED = ("known", "plausible")
_EXAMPLES = ("support", "labels")
_HEALTH = ("support_loss", "support_accuracy")
_ADAPTED = ("classifier", "way", *_HEALTH, "model")
_SIGNATURES = {
    "adapt": (_EXAMPLES, _ADAPTED),
    "predict": (("classifier", "queries"), (*_ANSWERS, "model")),
    "classify": ((*_EXAMPLES, "queries"), _ANSWERS),
    "embed": (_EXAMPLES, ("latents_before", "latents_after")),
    "embed_images": (("images",), ("features",)),
    "adapt_images": (("support_images", "labels"), _ADAPTED),
    "classify_images": (("support_images", "labels", "query_images"), _ANSWERS),
}
_WITHOUT_CLASSIFIER = ("classify", "embed_images", "classify_images")


def names_for(learner: AnyLearner, takes_pictures: bool = False) -> tuple[str, ...]:
    """Returns a method's signatures by name: fewer without a classifier or pictures."""
    is_classifier = not hasattr(learner, "answer")
    names = tuple(_SIGNATURES) if is_classifier else _WITHOUT_CLASSIFIER
    return tuple(n for n in names if takes_pictures or not n.endswith("_images"))


class Servable(tf.Module):
    """The object to save, with raw variables and the functions as attributes.

    Only the functions' closure holds the learner. As an attribute, a Keras layer would
    be saved as an object, and it would depend on the version of Keras whether programs
    that load sessions, such as TensorFlow Serving, find its variables.

    Args:
      learner: built, with the variables to export.
      fitted: its `Confidence`, if fitted.
      dtype: the learner's, "float32" or "float64". Requests and answers are float32.
      checked: checks requests in the graph. TensorFlow Lite drops assertions, so an
        export for it has static shapes instead.
      encoder: encoder of pictures, if the model takes any.
      identity: the output `model`: models of different ones cannot use each other's
        classifiers.
    """

    def __init__(
        self,
        learner: AnyLearner,
        limits: Limits,
        dtype: str,
        checked: bool = True,
        fitted: Confidence | None = None,
        encoder: Encoder | None = None,
        identity: int = 0,
    ):
        super().__init__(name="servable")
        self._names = names_for(learner, encoder is not None)
        held = getattr(learner, "variables", learner.trainable_variables)
        # The `value` of a Keras variable is a `tf.Variable`.
        self.learned = [v if isinstance(v, tf.Variable) else v.value for v in held]
        self.encoder = list(encoder.held) if encoder else []
        parts = _Parts(learner, limits, dtype, checked, fitted, encoder, identity)
        for name in self._names:
            inputs, _ = _SIGNATURES[name]
            specs = [_spec(field, limits, checked) for field in inputs]
            traced = tf.function(input_signature=specs, autograph=False)
            setattr(self, name, traced(getattr(parts, name)))

    def signatures(self) -> dict[str, Callable]:
        """Returns name -> function."""
        return {name: getattr(self, name) for name in self._names}


def nearest_of(learner: AnyLearner, fitted: Confidence | None) -> Learner | None:
    """Returns nearest centroid on a method's features, if its score is a cosine."""
    if fitted is None or fitted.score != "cosine":
        return None
    return beside(learner, NearestCentroid())


def described(limits: Limits, names: Sequence[str], is_fitted: bool = False) -> dict:
    """Returns signature -> inputs and outputs -> field -> type and shape, in words.

    `is_fitted` is True for a `Servable` with a fitted `Confidence`.
    """
    known = {"D": f"{limits.embedding_size}", "P": f"{limits.parameters}"}

    def words(name):
        dtype, *shape = _FIELDS[name]
        return f"{dtype} [{', '.join(known.get(letter, letter) for letter in shape)}]"

    return {
        signature: {
            side: {
                name: words(name)
                for name in (*fields, *(_FITTED if fields[:3] == _ANSWERS else ()))
                if is_fitted or name not in _FITTED
            }
            for side, fields in zip(("inputs", "outputs"), _SIGNATURES[signature])
        }
        for signature in names
    }


def shape_of(field: str, limits: Limits) -> list[int | None]:
    """Returns the sizes of a field's dimensions, None for variable ones."""
    known = {"D": limits.embedding_size, "P": limits.parameters}
    return [known.get(letter) for letter in _FIELDS[field][1:]]


def _spec(field: str, limits: Limits, checked: bool) -> tf.TensorSpec:
    """Returns a field's spec, without a shape if the graph checks it."""
    shape = None if checked else shape_of(field, limits)
    return tf.TensorSpec(shape, _FIELDS[field][0], name=field)


class _Parts:
    """The functions before tracing, with arguments and results as in `_FIELDS`."""

    def __init__(self, learner, limits, dtype, checked, fitted, encoder, identity):
        self._learner, self._limits, self._encoder = learner, limits, encoder
        self._identity = identity
        self._dtype, self._checked, self._fitted = dtype, checked, fitted
        self._nearest = nearest_of(learner, fitted)
        # One function for all signatures, because a smaller export loads faster.
        specs = [
            tf.TensorSpec([None, limits.embedding_size], "float32"),
            tf.TensorSpec([None], "int64"),
            tf.TensorSpec([], "int32"),
        ]
        traced = tf.function(input_signature=specs, autograph=False)
        self._adapt = traced(self._adapted_to)

    def adapt(self, support, labels):
        request = self._support({"support": support, "labels": labels})
        labels, adapted = request["labels"], self._adapted(request)
        support = self._unit(request["support"])
        logits = self._logits(adapted.classifier, support)  # [S, N]
        members = tf.one_hot(labels, request["way"], dtype=self._dtype)  # [S, N]
        losses = -tf.reduce_sum(members * tf.nn.log_softmax(logits), axis=1)
        right = tf.cast(tf.equal(tf.argmax(logits, axis=1), labels), tf.float32)
        return {
            "classifier": tf.cast(adapted.classifier, tf.float32),
            "way": tf.cast(request["way"], tf.int64),
            "support_loss": tf.cast(tf.reduce_mean(losses), tf.float32),
            "support_accuracy": tf.reduce_mean(right),
            "model": tf.constant(self._identity, tf.int64),
        }

    def predict(self, classifier, queries):
        request = {"classifier": classifier, "queries": queries}
        if self._checked:
            request = checks.check_classifier(request, self._limits)
            request = checks.check_queries(request, self._limits)
        classifier = tf.cast(request["classifier"], self._dtype)
        answer = self._answer(classifier, self._unit(request["queries"]))
        return {**answer, "model": tf.constant(self._identity, tf.int64)}

    def classify(self, support, labels, queries):
        request = {"support": support, "labels": labels, "queries": queries}
        request = self._support(request)
        if self._checked:
            request = checks.check_queries(request, self._limits)
        queries = self._unit(request["queries"])
        if hasattr(self._learner, "answer"):
            cosines = self._cosines(self._means(request), queries)
            return self._answers(self._answered(request, queries), cosines)
        return self._answer(self._adapted(request).classifier, queries)

    def embed(self, support, labels):
        request = self._support({"support": support, "labels": labels})
        adapted, names = self._adapted(request), ("latents_before", "latents_after")
        return {name: tf.cast(getattr(adapted, name), tf.float32) for name in names}

    def embed_images(self, images):
        request = self._pictures({"images": images}, "images", fewest=0)
        return {"features": features_of(request, "images", self._encoder)}

    def adapt_images(self, support_images, labels):
        return self.adapt(*self._examples(support_images, labels))

    def classify_images(self, support_images, labels, query_images):
        request = {"query_images": query_images}
        request = self._pictures(request, "query_images", fewest=0)
        support, labels = self._examples(support_images, labels)
        queries = features_of(request, "query_images", self._encoder)
        return self.classify(support, labels, queries)

    def _examples(self, support_images, labels):
        """Returns features and labels. Wrong labels are refused before any decoding."""
        request = {"support_images": support_images, "labels": labels}
        request = self._pictures(request, "support_images", fewest=2)
        count = tf.size(request["support_images"])
        request = checks.check_labels(request, "support_images", count, self._limits)
        return features_of(request, "support_images", self._encoder), request["labels"]

    def _pictures(self, request, field, fewest):
        most = self._limits.max_support
        return check_pictures(request, field, self._encoder, fewest, most)

    def _support(self, request: Request) -> Request:
        """Returns the checked request, with `way`."""
        if self._checked:
            return checks.check_support(request, self._limits)
        way = tf.cast(tf.reduce_max(request["labels"]), tf.int32) + 1
        return {**request, "way": way}

    def _unit(self, rows):
        return checks.unit_rows(tf.cast(rows, self._dtype))

    def _adapted(self, request: Request) -> UnevenAdapted:
        return self._adapt(request["support"], request["labels"], request["way"])

    def _adapted_to(self, support, labels, way):
        request = {"support": support, "labels": labels, "way": way}
        adapted = uneven_adapt(self._learner)(self._unit(support), labels, way)
        if self._nearest is not None:
            both = [adapted.classifier, self._means(request)]
            adapted = adapted._replace(classifier=tf.concat(both, axis=1))
        shape = [None, self._limits.parameters]  # [N, P]
        return adapted._replace(classifier=tf.ensure_shape(adapted.classifier, shape))

    def _logits(self, classifier, inputs):
        """Returns [M, N] scores of one task, divided by the temperature."""
        own = classifier[:, : self._limits.parameters - self._limits.means]
        logits = self._learner.logits(own[tf.newaxis], inputs[tf.newaxis])[0]
        return self._at_temperature(logits)

    def _answer(self, classifier, queries):
        means = classifier[:, self._limits.parameters - self._limits.means :]
        cosines = self._cosines(means, queries)
        return self._answers(self._logits(classifier, queries), cosines)

    def _means(self, request):
        """Returns the class means [N, P'], if the score is a cosine."""
        if self._nearest is None:
            return None
        support = self._unit(request["support"])
        adapt = uneven_adapt(self._nearest)
        return adapt(support, request["labels"], request["way"]).classifier

    def _cosines(self, means, queries):
        if self._nearest is None:
            return None
        return self._nearest.logits(means[tf.newaxis], queries[tf.newaxis])[0]

    def _answered(self, request, queries):
        """Returns [M, N] scores of a method that sees all queries together."""
        support = self._unit(request["support"])
        targets = tf.one_hot(request["labels"], request["way"], dtype=self._dtype)
        inputs = (x[tf.newaxis] for x in (support, targets, queries))
        return self._at_temperature(self._learner.answer(*inputs)[0])

    def _at_temperature(self, logits):
        return logits / self._fitted.temperature if self._fitted else logits

    def _answers(self, logits, cosines):
        """Returns the answers to queries, with their ranks in two fitted tables.

        `known` is the share of validation queries of their episode's classes with lower
        scores. To accept 5 % false alarms, call queries below 0.05 "none of these". The
        classes with a `plausible` of 0.1 or more are a set that contains the right one
        in 90 % of cases.
        """
        probabilities = tf.nn.softmax(logits)
        answer = {
            "probabilities": tf.cast(probabilities, tf.float32),
            "logits": tf.cast(logits, tf.float32),
            "classes": tf.argmax(logits, axis=1),
        }
        if self._fitted:
            scores = logits if cosines is None else cosines
            likeness = _likeness(scores, self._fitted.score)  # [M]
            answer["known"] = self._rank(likeness, self._fitted.known)
            answer["plausible"] = self._rank(probabilities, self._fitted.least[::-1])
        return answer

    def _rank(self, values, table):
        """Returns the ranks of values in an ascending table, 0 to 1, in float32."""
        steps, table = len(table) - 1, tf.constant(table, self._dtype)
        if self._checked:
            flat = tf.reshape(values, [-1])
            place = tf.searchsorted(table, flat, side="right")
            place = tf.reshape(place, tf.shape(values))
        else:  # TensorFlow Lite has no `searchsorted`
            is_above = tf.expand_dims(values, -1) >= table
            place = tf.reduce_sum(tf.cast(is_above, tf.int32), axis=-1)
        return tf.cast(tf.maximum(place - 1, 0), tf.float32) / steps


def _likeness(logits, score):
    """Returns a score of `evaluation.confidence` [M], from logits or cosines [M, N]."""
    if score == "probability":
        logits = tf.nn.softmax(logits)
    if score == "energy":
        return tf.reduce_logsumexp(logits, axis=1)
    return tf.reduce_max(logits, axis=1)
