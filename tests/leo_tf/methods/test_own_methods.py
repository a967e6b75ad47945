"""Methods that are not ours: registered, by module and class, or by entry point."""

import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported_models import export, make_request, temperature_of, tensors
from saved_runs import results_of
from tiny_cases import B, D, K, N, make_episode

import leo_tf
from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.export import exporter
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable
from leo_tf.methods import registry
from leo_tf.methods.method import Method
from leo_tf.methods.settings import effective, ranges
from leo_tf.model.learner import (
    Adapted,
    Learner,
    adapt_and_score,
    class_scores,
    without_latents,
)
from leo_tf.training.meta_step import adam, make_meta_step, meta_gradients

MODULE = """
import tensorflow as tf
from leo_tf.model.learner import Adapted, Learner, QueryAware

class Means(Learner):
    '''The class with the largest product with its mean.'''
    title = "Means"
    is_trained = False

    def __init__(self, config, embedding_size):
        self.size = embedding_size

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        return Adapted(tf.reduce_mean(support_inputs, axis=2))

class Moved(QueryAware):
    '''Nearest mean, after the queries have been moved to the mean of the support.'''
    title = "Moved"
    is_trained = False
    query_aware = transductive = True

    def __init__(self, config, embedding_size):
        pass

    def answer(self, support, targets, queries):
        middle = (tf.reduce_mean(x, axis=1, keepdims=True) for x in (support, queries))
        target, mine = middle
        means = tf.matmul(targets, support, transpose_a=True)
        means /= tf.reduce_sum(targets, axis=1)[..., tf.newaxis]
        moved = (queries + target - mine)[:, :, tf.newaxis]  # [B, M, 1, D]
        return -tf.reduce_sum((moved - means[:, tf.newaxis]) ** 2, axis=3)

class Bad:
    def __init__(self, config, embedding_size):
        pass

number = 3
"""


class Scaled(keras.layers.Layer):
    """Class means times a learned number: one scalar variable."""

    title = "Scaled means"
    settings = ("dropout_rate",)
    ranges = {"outer_lr": (1e-3, 1e-1)}  # noqa: RUF012

    def __init__(self, config, embedding_size):
        super().__init__(name="scaled", dtype=config.data.dtype)
        self.scale = self.add_weight(name="scale", shape=[], initializer="ones")

    kernels = property(lambda self: [self.scale])

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        return Adapted(self.scale.value * tf.reduce_mean(support_inputs, axis=2))

    def logits(self, classifier, inputs, training=False, noise=None):
        return class_scores(classifier, inputs)

    def draw_noise(self, episode, seed, step, first_task=0):
        return None


@pytest.fixture
def registered():
    """Registers `Scaled` as "scaled", for one test."""
    leo_tf.register_method("scaled", Scaled)
    yield
    del registry._methods["scaled"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module `their_methods`, on Python's path."""
    (tmp_path / "their_methods.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_methods", raising=False)
    return tmp_path


def config(method):
    return Config().replace(method=method, way=N, shot=K, dtype="float64")


def test_a_registered_class_is_a_method_like_every_other(registered):
    method = leo_tf.METHODS["scaled"]
    assert (method.title, method.is_trained) == ("Scaled means", True)
    assert (
        method.description == "Class means times a learned number: one scalar variable."
    )
    assert "dropout_rate" in effective("scaled") and "kl_weight" not in effective(
        "scaled"
    )
    assert ranges("scaled") == {"outer_lr": (1e-3, 1e-1)}
    learner = registry.build(config("scaled"), D)
    support = make_episode().support_inputs
    expected = tf.reduce_mean(support, axis=2)
    np.testing.assert_allclose(learner.adapt(support, None).classifier, expected)


def test_a_method_of_one_scalar_is_trained_by_meta_steps(registered):
    learner, episode = registry.build(config("scaled"), D), make_episode()
    thresholds = {"gradient_threshold": 0.1, "gradient_norm_threshold": 0.1}
    meta_step = make_meta_step(learner, adam(0.1), **thresholds)
    zero = tf.constant(0, tf.int64)
    metrics = meta_step(episode, zero, zero)
    assert metrics["non_finite"] == 0
    assert abs(float(learner.scale.numpy()) - 1.0) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("name", ["leo", "centroid", "scaled"])
def test_a_name_that_is_taken_is_not_replaced(registered, name):
    before = leo_tf.METHODS[name]
    with pytest.raises(FlagError, match="not taken"):
        leo_tf.register_method(name, Scaled)
    assert leo_tf.METHODS[name] is before
    leo_tf.register_method("scaled", Scaled, replace=True)


@pytest.mark.parametrize("name", ["", "my-method", "a b", "a.b", "a:b", "../x", 3])
def test_a_name_that_is_no_name_is_refused(name):
    with pytest.raises(FlagError, match="letters, digits"):
        leo_tf.register_method(name, Scaled)


def test_what_is_no_method_is_refused():
    with pytest.raises(FlagError, match="class to call"):
        leo_tf.register_method("three", 3)
    with pytest.raises(FlagError, match="unheard_of"):
        Method("x", "x", Scaled, settings=("unheard_of",))


def test_a_class_is_found_by_module_and_name(module):
    found = registry.method_named("their_methods:Means")
    assert (found.title, found.is_trained) == ("Means", False)
    learner = registry.build(config("their_methods:Means"), D)
    assert type(learner).__name__ == "Means" and learner.size == D
    episode = make_episode()
    adapted, logits = adapt_and_score(learner, episode)
    np.testing.assert_array_equal(
        logits, class_scores(adapted.classifier, episode.query_inputs)
    )
    assert logits.shape[0] == B


def test_an_entry_point_of_an_installed_package_is_found(module):
    info = module / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[leo_tf.methods]\nmeans = their_methods:Means\n"
    )
    assert registry.is_known("means") and not registry.is_known("medians")
    assert registry.method_named("means").title == "Means"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unheard_of", "one of centroid, .* package.module:Class or sklearn:"),
        ("no_such_module:Class", "no module no_such_module"),
        ("their_methods:Missing", "no 'Missing' in .*their_methods.py"),
        ("their_methods:number", "a value of type int"),
    ],
)
def test_what_is_not_there_is_named(module, name, said):
    with pytest.raises(FlagError, match=said):
        registry.method_named(name)


def test_a_module_is_found_in_this_directory(tmp_path, monkeypatch):
    (tmp_path / "methods_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert registry.method_named("methods_here:Means").title == "Means"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import a_package_they_lack", "a_package_they_lack"),
        ("def x(:\n", "SyntaxError: "),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_import_that_fails_inside_their_module_is_shown_as_such(module, code, said):
    (module / "their_methods.py").write_text(code)
    with pytest.raises(FlagError, match=f"{said}.*import of their_methods"):
        registry.method_named("their_methods:Means")


def test_a_class_that_is_no_learner_is_refused_before_anything_runs(module):
    with pytest.raises(FlagError, match="Bad without adapt, logits"):
        registry.build(config("their_methods:Bad"), D)


class LearnedCosine(keras.layers.Layer, Learner):
    """A layer that inherits the optional parts, with a head of its own."""

    def build(self, support_shape):
        self.scale = self.add_weight(name="scale", shape=[], initializer="ones")

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        return Adapted(tf.reduce_mean(support_inputs, axis=2))

    def adapt_uneven(self, support, labels, way):
        means = tf.math.unsorted_segment_mean(support, labels, way)
        return without_latents(means)

    def logits(self, classifier, inputs, training=False, noise=None):
        directions = tf.math.l2_normalize(classifier, axis=-1)
        return 3.0 * self.scale.value * class_scores(directions, inputs)


def made(config, embedding_size):
    return LearnedCosine(name="learned_cosine", dtype=config.data.dtype)


@pytest.fixture
def learned_cosine():
    """`LearnedCosine`, as the registry makes it."""
    leo_tf.register_method("learned_cosine", made)
    yield registry.build(config("learned_cosine"), D)
    del registry._methods["learned_cosine"]


def test_a_layer_inherits_what_a_learner_need_not_write(learned_cosine):
    [scale] = learned_cosine.trainable_variables
    assert scale.path == "learned_cosine/scale" and learned_cosine.kernels == ()
    assert learned_cosine.draw_noise(make_episode(), 0, 0) is None
    loss, [gradient], _ = meta_gradients(learned_cosine, make_episode())
    assert np.isfinite(loss) and np.abs(gradient) > 1e-3


def test_an_export_that_would_answer_otherwise_than_the_test_is_refused(
    learned_cosine, monkeypatch
):
    run = types.SimpleNamespace(learner=learned_cosine, config=config("learned_cosine"))
    exporter._check_exportable(run, D)

    def first_examples(support, labels, way):
        firsts = [tf.where(labels == n)[0, 0] for n in range(way)]
        return without_latents(tf.gather(support, firsts))

    def of_another_size(support, labels, way):
        return without_latents(tf.math.unsorted_segment_mean(support, labels, way)[1:])

    for wrong in (first_examples, of_another_size):
        monkeypatch.setattr(learned_cosine, "adapt_uneven", wrong)
        with pytest.raises(
            FlagError, match="`adapt_uneven` that makes the classifiers"
        ):
            exporter._check_exportable(run, D)


def test_an_export_scores_by_the_head_of_the_method(learned_cosine, tmp_path):
    episode = make_episode(tasks=1)
    _, logits = adapt_and_score(learned_cosine, episode)
    servable = Servable(learned_cosine, Limits(D, D, 7, 30), "float64")
    tf.saved_model.save(servable, str(tmp_path), signatures=servable.signatures())
    answer = tf.saved_model.load(str(tmp_path)).signatures["classify"](
        support=tf.cast(tf.reshape(episode.support_inputs, [-1, D]), tf.float32),
        labels=tf.cast(tf.reshape(episode.support_labels, [-1]), tf.int64),
        queries=tf.cast(tf.reshape(episode.query_inputs, [-1, D]), tf.float32),
    )
    expected = tf.reshape(logits, [-1, N])
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-6)


def test_variables_without_names_of_their_own_are_refused_before_anything_runs():
    leo_tf.register_method("nameless", lambda *unused: LearnedCosine())
    try:
        with pytest.raises(FlagError, match=r"learned_cosine.*/scale.*name=") as caught:
            registry.build(config("nameless"), D)
    finally:
        del registry._methods["nameless"]
    assert "same names" in caught.value.expected


def test_a_method_with_nothing_to_train_must_say_so(module):
    text = MODULE.replace("    is_trained = False\n", "")
    (module / "their_methods.py").write_text(text)
    with pytest.raises(FlagError, match="is_trained"):
        registry.build(config("their_methods:Means"), D)


def test_the_command_line_runs_a_class_of_another_module(
    module, train, evaluate, tmp_path, capsys
):
    workdir = tmp_path / "run"
    assert train(workdir, "--method=their_methods:Means") == 0
    assert "Means" in capsys.readouterr().out
    assert evaluate(workdir, "--test_way=4") == 0
    assert "Means" in capsys.readouterr().out
    assert train(tmp_path / "other", "--method=unheard_of") == 2
    assert "package.module:Class" in capsys.readouterr().err


def test_a_class_that_answers_all_queries_together_is_like_a_built_in_one(
    module, quick_jobs, train, evaluate, tmp_path, capsys
):
    import their_methods

    leo_tf.register_method("moved", their_methods.Moved)
    try:
        job, out = tmp_path / "job", tmp_path / "exports"
        flags = "--mode=compare", "--methods=moved,centroid", "--jobs=0", "--quiet"
        assert train(job, *flags, "--query_dirichlet=1", "--test_num_query=2") == 0
        rows = results_of(job)["methods"]
        assert rows["moved"]["transductive"] and not rows["centroid"]["transductive"]
        assert "Transductive methods, which see all" in (job / "results.md").read_text()
        capsys.readouterr()
        assert evaluate(job / "moved") == 0
        assert (
            f"{100 * rows['moved']['accuracy']['mean']:.2f}" in capsys.readouterr().out
        )
        assert export(job / "moved", out, "--quiet") == 0
        temperature = temperature_of(job / "moved")
    finally:
        del registry._methods["moved"]
    request = make_request(3, 2)
    rows = [request[name][np.newaxis] for name in ("support", "queries")]
    support, queries = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in rows)
    targets = tf.one_hot(request["labels"][np.newaxis], 3)
    expected = their_methods.Moved(None, 8).answer(support, targets, queries)
    answer = tf.saved_model.load(str(out / "1")).signatures["classify"](
        **tensors(request)
    )
    np.testing.assert_allclose(answer["logits"], expected[0] / temperature, atol=1e-5)


def test_looking_a_method_up_loads_no_tensorflow():
    code = "import sys, leo_tf.methods.defaults, leo_tf.methods.settings\n"
    code += "from leo_tf.methods.registry import METHODS, is_known, method_named\n"
    code += (
        "assert is_known('leo') and is_known('a.b:C') and method_named('maml').title\n"
    )
    code += "print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("    def __init__(self):\n        pass\n", "TypeError"),
        ("    def __init__(self, *_):\n        1 / 0\n", "ZeroDivisionError"),
        ("    title = 3\n", "`title`: expected text, received 3"),
    ],
)
def test_a_class_that_cannot_be_made_is_refused_in_a_line(module, code, said):
    with open(module / "their_methods.py", "a") as file:
        file.write(f"\nclass Broken(Means):\n{code}")
    with pytest.raises(FlagError, match=said) as caught:
        registry.build(config("their_methods:Broken"), D)
    assert "\n" not in str(caught.value)
