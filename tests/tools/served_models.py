"""Exported models small enough for tests: nearest centroid with an export's checks.

write_model(directory / "1")                  # features of 3 numbers
write_model(directory / "2", scale=-1.0)      # one that answers otherwise
"""

import hashlib
import json
import pathlib

import numpy as np
import tensorflow as tf

SIZE, MAX_CLASSES, MAX_SUPPORT = 3, 5, 12
_INTEGERS = tf.TensorSpec([None], tf.int64)


def _check(right, field, expected, received):
    message = tf.strings.format("{}", [tf.convert_to_tensor(received)])
    parts = [f"{field}: expected {expected}, received ", message, "."]
    return tf.debugging.Assert(right, [tf.strings.join(parts)])


def _finite(field, rows):
    finite = tf.reduce_all(tf.math.is_finite(rows))
    return _check(finite, field, "finite numbers", "NaN or infinity")


class Centroids(tf.Module):
    """Scores by distance: a class has its mean and a bias, so P = D + 1."""

    def __init__(self, size, scale, max_classes, max_support):
        super().__init__()
        self.scale = tf.Variable(scale)
        self.caps = max_classes, max_support
        rows = tf.TensorSpec([None, size], tf.float32)
        classifier = tf.TensorSpec([None, size and size + 1], tf.float32)
        self.traced_functions = {
            "adapt": self.traced(self.adapt, support=rows, labels=_INTEGERS),
            "predict": self.traced(self.predict, classifier=classifier, queries=rows),
            "classify": self.traced(
                self.classify, support=rows, labels=_INTEGERS, queries=rows
            ),
            "embed": self.traced(self.embed, support=rows, labels=_INTEGERS),
            "double": self.traced(self.double, values=rows),
        }
        self.traced_functions["serving_default"] = self.traced_functions["classify"]

    def traced(self, function, **inputs):
        return tf.function(function).get_concrete_function(**inputs)

    def adapt(self, support, labels):
        classes, rows = self.caps
        received = tf.size(tf.unique(labels).y)
        checks = [
            _check(
                tf.size(labels) == tf.shape(support)[0],
                "labels",
                "one a row",
                tf.size(labels),
            ),
            _check(received >= 2, "labels", "2 classes or more", received),
            _check(
                received <= classes, "labels", f"{classes} classes or fewer", received
            ),
            _check(
                tf.size(labels) <= rows,
                "support",
                f"{rows} rows or fewer",
                tf.size(labels),
            ),
            _check(tf.shape(support)[1] > 0, "support", "1 column or more", 0),
            _finite("support", support),
        ]
        with tf.control_dependencies(checks):
            way = tf.reduce_max(labels) + 1
        gaps = _check(
            way == tf.cast(received, tf.int64),
            "labels",
            "0 to N - 1 without gaps",
            labels,
        )
        with tf.control_dependencies([gaps]):
            mean = tf.math.unsorted_segment_mean(support, labels, way)  # [N, D]
        bias = -0.5 * tf.reduce_sum(mean**2, axis=1, keepdims=True)
        classifier = tf.concat([mean, bias], axis=1)
        answer = self.predict(classifier, support)
        right = tf.reduce_mean(tf.cast(answer["classes"] == labels, tf.float32))
        chosen = tf.gather(answer["probabilities"], labels, batch_dims=1)
        loss = -tf.reduce_mean(tf.math.log(chosen))
        return {
            "classifier": classifier,
            "way": way,
            "support_loss": loss,
            "support_accuracy": right,
        }

    def predict(self, classifier, queries):
        with tf.control_dependencies([_finite("queries", queries)]):
            scores = tf.matmul(queries, classifier[:, :-1], transpose_b=True)
        logits = self.scale * (scores + classifier[:, -1])  # [M, N]
        probabilities = tf.nn.softmax(logits)
        classes = tf.argmax(logits, axis=1)
        return dict(probabilities=probabilities, logits=logits, classes=classes)

    def classify(self, support, labels, queries):
        return self.predict(self.adapt(support, labels)["classifier"], queries)

    def embed(self, support, labels):
        codes = self.adapt(support, labels)["classifier"][:, :2]
        return {"latents_before": codes, "latents_after": codes * 2.0}

    def double(self, values):
        return {"values": values * 2.0}


def write_model(
    path,
    size=SIZE,
    scale=1.0,
    max_classes=MAX_CLASSES,
    max_support=MAX_SUPPORT,
) -> pathlib.Path:
    """Writes a model and its export.json to `path`, whose name is its version."""
    path = pathlib.Path(path)
    model = Centroids(size, scale, max_classes, max_support)
    tf.saved_model.save(model, str(path), signatures=model.traced_functions)
    files = [file for file in path.rglob("*") if file.is_file()]
    metadata = {
        "method": "centroid",
        "embedding_size": size,
        "max_classes": max_classes,
        "max_support": max_support,
        "parameters_per_class": size and size + 1,
        "files": {
            str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
        },
    }
    (path / "export.json").write_text(json.dumps(metadata))
    return path


def clusters(way=3, rows=4, size=SIZE, seed=0):
    """Rows [way * rows, size] around one centre per class, and their class numbers."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(way, size)) * 3, rows, axis=0)
    features = np.float32(centres + random.normal(size=centres.shape) * 0.3)
    return features, np.repeat(np.arange(way), rows)


def numpy_answers(support, labels, queries, scale=1.0):
    """(probabilities, logits, classes) that a model must give, in NumPy."""
    means = np.stack([support[labels == c].mean(0) for c in np.unique(labels)])
    logits = scale * (queries @ means.T - 0.5 * np.sum(means**2, axis=1))
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True), logits, logits.argmax(1)
