"""Feature transforms: against scikit-learn, and as a part of any method and any run."""

import json
import math
import shutil
import signal
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import leo_tf
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.episode import Episode
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.data_pipeline.sources import Data
from leo_tf.errors import CheckpointError, FlagError, InputError, Stopped
from leo_tf.evaluation import validation_tuning
from leo_tf.evaluation.evaluate import evaluate as evaluate_all
from leo_tf.evaluation.validation_tuning import fit_transform
from leo_tf.experiments import train as train_job
from leo_tf.methods import transform_fitting
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import METHODS, build
from leo_tf.methods.transform_fitting import Statistics, check_can_fit
from leo_tf.methods.transformed import Transformed
from leo_tf.model.learner import adapt_and_score
from leo_tf.runs.run import load_run
from leo_tf.training import short_run
from leo_tf.training.replicas import Replicas
from leo_tf.training.short_run import accuracy_after

C, ROWS, D = 7, 30, 10
KINDS = ("center", "within", "lda", "soft")


def table(positive=False, rows=ROWS, dtype="float64") -> FeatureTable:
    """Seven classes that scatter much more in some directions than in others."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(C, D)), rows, axis=0)
    noise = random.normal(size=centres.shape) @ random.normal(size=(D, D))
    features, labels = centres + noise, np.repeat(np.arange(C), rows)
    order = random.permutation(len(labels))
    features, labels = features[order], labels[order]
    if positive:
        features = np.abs(features)
    names = tuple(f"class {i}" for i in range(C))
    return FeatureTable.from_embeddings(
        EmbeddingTable(features, labels, names, source="some.npz", dtype=dtype)
    )


def rows_and_labels(features: FeatureTable):
    """[rows, D] ordered by class, and their classes."""
    rows = features.features.numpy()[features.index.rows]
    return rows, np.repeat(np.arange(C), features.index.class_sizes)


def test_discriminants_are_those_of_scikit_learn():
    features = table()
    rows, labels = rows_and_labels(features)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(rows, labels)
    mine = Statistics(features).transform("lda", 3).kernel
    signs = np.sign(mine[0] / theirs.scalings_[0, :3])
    np.testing.assert_allclose(mine * signs, theirs.scalings_[:, :3], rtol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_the_nearest_mean_of_all_discriminants_is_scikit_learns_answer(shrinkage):
    features = table()
    rows, labels = rows_and_labels(features)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    expected = theirs.fit(rows, labels).decision_function(rows)
    found = Statistics(features).transform("lda", C - 1, shrinkage)
    z = (rows - found.mean) @ found.kernel
    means = np.stack([z[labels == k].mean(axis=0) for k in range(C)])
    scores = -((z[:, np.newaxis] - means) ** 2).sum(axis=-1) / 2
    for each in (scores, expected):  # what all classes have is no matter
        each -= each.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-10)


def test_the_scatter_within_classes_is_a_ball_of_radius_1():
    features = table()
    rows, labels = rows_and_labels(features)
    for kind in ("within", "lda"):
        found = Statistics(features).transform(kind)
        z = (rows - found.mean) @ found.kernel
        apart = z - np.stack([z[labels == k].mean(axis=0) for k in labels])
        ball = apart.T @ apart / len(rows)
        np.testing.assert_allclose(ball, np.eye(len(ball)), atol=1e-10)
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)


def test_soft_weighs_discriminants_by_what_of_their_variance_is_between_classes():
    statistics = Statistics(table())
    hard, soft = (statistics.transform(kind).kernel for kind in ("lda", "soft"))
    rows, labels = rows_and_labels(table())
    z = (rows - statistics.mean) @ hard
    means = np.stack([z[labels == k].mean(axis=0) for k in range(C)])
    between = (means**2).mean(axis=0)
    np.testing.assert_allclose(soft, hard * np.sqrt(between / (between + 1)))
    assert (np.diff(between) < 0).all()


def test_every_class_counts_alike_whatever_its_size():
    random = np.random.default_rng(1)
    features = random.normal(size=(40, D))
    labels = np.repeat([0, 1], [30, 10])
    names = ("many", "few")
    found = Statistics(
        FeatureTable.from_embeddings(
            EmbeddingTable(features, labels, names, source="s", dtype="float64")
        )
    )
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = [unit[labels == k].mean(axis=0) for k in (0, 1)]
    np.testing.assert_allclose(found.mean, np.mean(means, axis=0))
    covariances = [np.cov(unit[labels == k].T, bias=True) for k in (0, 1)]
    expected = np.linalg.eigvalsh(np.mean(covariances, axis=0))
    np.testing.assert_allclose(found.variances, expected, rtol=1e-9)


def test_blocks_change_nothing(monkeypatch):
    whole = Statistics(table()).transform("soft")
    monkeypatch.setattr(transform_fitting, "_NUMBERS_AT_ONCE", 7 * D)
    parts = Statistics(table()).transform("soft")
    np.testing.assert_allclose(np.abs(parts.kernel), np.abs(whole.kernel), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_features_come_out_with_length_1_and_their_mean_taken_off(kind):
    features = table(positive=True)
    found = Statistics(features, power=0.5).transform(kind)
    rows = features.features.numpy()
    raised = np.sqrt(rows) / np.linalg.norm(np.sqrt(rows), axis=1, keepdims=True)
    expected = raised - found.mean
    expected = expected @ found.kernel if found.kernel.size else expected
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found(features.features), expected, atol=1e-12)
    assert found.output_size == expected.shape[1]


def test_what_cannot_be_fitted_is_refused_naming_the_setting():
    with pytest.raises(InputError, match=r"some.npz: `embeddings`: .*negative"):
        Statistics(table(), power=0.5)
    with pytest.raises(InputError, match="--transform_dims: expected at most 6, of 7"):
        Statistics(table()).transform("lda", 7)
    few = Statistics(table(rows=2))  # seven directions of ten
    with pytest.raises(InputError, match="--transform_shrinkage: expected above 0"):
        few.transform("within")
    assert np.isfinite(few.transform("within", shrinkage=0.1).kernel).all()
    equal = Statistics(table(rows=1))  # of one row, no class has any variance
    with pytest.raises(InputError, match=r"some.npz: classes: .*rows that differ"):
        equal.transform("lda", shrinkage=0.1)
    positive = Statistics(table(positive=True), power=0.5).transform("center")
    transform_fitting.check_fits(positive, table(positive=True))
    with pytest.raises(InputError, match="`embeddings`: expected none below 0"):
        transform_fitting.check_fits(positive, table())
    with pytest.raises(InputError, match="`embeddings`: expected D = 3"):
        transform_fitting.check_fits(positive._replace(mean=np.zeros(3)), table())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.long] * (k != "lda")) for k in KINDS]
)
def test_a_method_after_a_transform_answers_as_on_transformed_features(method, kind):
    features = table(dtype="float32")
    found = Statistics(features).transform(kind, 4, 0.1)
    config = leo_tf.Config().replace(
        method=method,
        way=3,
        num_latents=4,
        inner_unroll_length=1,
        finetuning_unroll_length=1,
        **dict.fromkeys(METHODS[method].chosen, 1.0),
    )
    same = None
    if METHODS[method].knows_classes:
        found, size = transform_fitting.with_classes(found, features), found.output_size
        same = found._replace(mean=np.zeros(size), kernel=np.zeros([0, 0]))
    inner = build(config, found.output_size, same)
    outer = build(config, D, found)
    assert isinstance(outer, Transformed)
    pairs = zip(inner.trainable_variables, outer.trainable_variables)
    for mine, its in pairs:
        assert mine.path == its.path
        its.assign(mine)
    raw = tf.reshape(features.features[:30], [2, 3, 5, D])
    labels = tf.tile(tf.range(3)[:, tf.newaxis], [1, 5])[tf.newaxis]
    labels = tf.tile(labels, [2, 1, 1])

    def episode(inputs):
        support, query = inputs[:, :, :2], inputs[:, :, 2:]
        return Episode(support, labels[..., :2], query, labels[..., 2:])

    seed, step = tf.constant(0, tf.int64), tf.constant(3, tf.int64)
    together = METHODS[method].query_aware
    for training in (False,) if together else (False, True):
        answers = []
        for learner, inputs in ((inner, found(raw)), (outer, raw)):
            each = episode(inputs)
            noise = learner.draw_noise(each, seed, step) if training else None
            adapted, logits = adapt_and_score(learner, each, training, noise)
            answers.append((adapted.classifier, logits))
        # PT-MAP's loops end when they hardly move, which may be some steps apart.
        close = {"rtol": 1e-3, "atol": 1e-3} if together else {"atol": 1e-5}
        for mine, its in zip(*answers):
            np.testing.assert_allclose(mine, its, **close)
    if hasattr(inner, "latent_codes"):
        for mine, its in zip(
            inner.latent_codes(episode(found(raw))), outer.latent_codes(episode(raw))
        ):
            np.testing.assert_allclose(mine, its, atol=1e-5)
    assert hasattr(outer, "latent_codes") == hasattr(inner, "latent_codes")
    if together:
        return
    support, flat = raw[0, :, :2], labels[0, :, :2]
    support, flat = tf.reshape(support, [6, D]), tf.reshape(flat, [6])
    uneven = outer.adapt_uneven(support, flat, tf.constant(3)).classifier
    expected = inner.adapt_uneven(found(support), flat, tf.constant(3)).classifier
    np.testing.assert_allclose(uneven, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"transform_dims": 3}, "--transform_dims: expected none with .*=none"),
        (
            {"feature_transform": "soft", "transform_dims": 3},
            "--transform_dims: expected none with .*=soft",
        ),
        (
            {"feature_transform": "center", "transform_shrinkage": 0.1},
            "--transform_shrinkage: expected none with .*=center",
        ),
        ({"feature_power": 0.5}, "--feature_power: expected 1 with .*=none"),
        (
            {"feature_transform": "lda", "strategy": "multi_worker"},
            "--feature_transform: expected none with --strategy=multi_worker",
        ),
    ],
)
def test_settings_that_would_make_no_difference_are_refused(settings, said):
    with pytest.raises(FlagError, match=said):
        build(leo_tf.Config().replace(**settings), D)


@pytest.fixture(scope="module")
def run(train, quick_jobs, tmp_path_factory):
    """A run on features of three discriminants."""
    workdir = tmp_path_factory.mktemp("transformed") / "run"
    flags = ["--feature_transform=lda", "--transform_dims=3", "--quiet"]
    assert train(workdir, *flags) == 0
    return workdir


def accuracy(workdir):
    return json.loads((workdir / "results.json").read_text())["accuracy"]


def test_a_run_keeps_its_transform_and_says_so(run, evaluate, capsys):
    opened = load_run(run)
    opened.restore_best()
    assert opened.transform.size == 8 and opened.transform.output_size == 3
    # Six validation classes are too few to choose on.
    assert opened.config.features.transform_shrinkage == 0.1
    assert accuracy(run)["centroid"] != accuracy(run)["leo"]
    assert evaluate(run, "--quiet") == 0
    told = capsys.readouterr().out
    assert "tiny (lda, dims 3, shrinkage 0.1), test: 3-way" in told
    assert leo_tf.evaluate(run).accuracy.mean == accuracy(run)["leo"]["mean"]


def test_a_resumed_run_keeps_the_transform_it_began_with(run, train, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    before = (copy / "transform.npz").read_bytes()
    flags = ["--feature_transform=lda", "--transform_dims=3", "--quiet"]
    assert train(copy, *flags, "--num_steps=14") == 0
    assert (copy / "transform.npz").read_bytes() == before
    assert train(copy, "--feature_transform=soft", "--quiet") == 3
    changed = ["--feature_transform=soft", "--quiet", "--allow_changes"]
    assert train(copy, *changed) == 3, "no variable would fit"


@pytest.mark.parametrize("damage", [b"no zip", b"", None, "another", "shape", "huge"])
def test_a_damaged_transform_is_refused_by_its_path(run, tmp_path, damage):
    copy = shutil.copytree(run, tmp_path / "copy")
    path = copy / "transform.npz"
    if damage is None:
        path.unlink()
    elif damage in ("another", "shape", "huge"):
        with np.load(path) as arrays:
            mean, kernel = arrays["mean"], arrays["kernel"]
            changed = {
                "another": {"mean": mean + 1e-9},
                "shape": {"kernel": kernel.reshape(kernel.shape[::-1])},
                "huge": {"kernel": np.zeros([4000, 4000])},
            }
            whole = {**arrays, **changed[damage]}
        np.savez_compressed(path, **whole)
    else:
        path.write_bytes(damage)
    with pytest.raises(CheckpointError) as caught:
        leo_tf.evaluate(copy)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and ": expected " in said
    assert "\n" not in str(caught.value)


def test_the_transform_is_inside_the_export(run, tmp_path, tiny_data):
    leo_tf.export_model(run, tmp_path / "exported")
    with np.load(tiny_data / "tiny" / "test.npz") as file:
        rows, labels = file["embeddings"][:36], file["labels"][:36]
    client = leo_tf.Classifier(tmp_path / "exported").fit(rows[::4], labels[::4])
    opened = load_run(run)
    opened.restore_best()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = np.unique(labels, return_inverse=True)[1]
    adapted = opened.learner.adapt_uneven(
        tf.constant(unit[::4]), tf.constant(numbers[::4]), tf.constant(3)
    )
    classifier = adapted.classifier[tf.newaxis]
    logits = opened.learner.logits(classifier, tf.constant(unit)[tf.newaxis])[0]
    logits = logits / opened.confidence(opened.checkpoints.best()).temperature
    np.testing.assert_allclose(client.decision_function(rows), logits, atol=1e-4)


@pytest.mark.parametrize("method", ["lda", "simpleshot"])
def test_a_method_may_be_defined_by_its_transform(
    method, train, quick_jobs, tmp_path, tiny_data, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    assert train(tmp_path / "run", f"--method={method}", "--quiet") == 0
    opened = load_run(tmp_path / "run")
    opened.restore_best()
    kind = {"lda": "lda", "simpleshot": "center"}[method]
    assert opened.config.features.feature_transform == kind
    features = leo_tf.load_data(tiny_data / "tiny")["train"]
    fitted = Statistics(FeatureTable.from_embeddings(features))
    features = opened.config.features
    parts = features.transform_dims, features.transform_shrinkage or 0.0
    expected = fitted.transform(kind, *parts)
    np.testing.assert_array_equal(opened.transform.mean, expected.mean)
    told = capsys.readouterr().out
    assert "nearest centroid on untransformed features" in told
    plain = ["--method=centroid", "--quiet"]
    assert train(tmp_path / "plain", *plain) == 0
    assert (
        accuracy(tmp_path / "run")["centroid"]["mean"]
        == (accuracy(tmp_path / "plain")["centroid"]["mean"])
    )
    soft = ["--feature_transform=soft", "--quiet"]
    assert train(tmp_path / "soft", f"--method={method}", *soft) == 2
    assert f"expected {kind}, which is part of {method}" in capsys.readouterr().err


def test_seeds_are_reproduced_on_the_features_that_were_selected(tmp_path, quick_jobs):
    config = leo_tf.Config().replace(
        method="r2d2",
        feature_transform="lda",
        **{"way": 3, "num_query": 3, "num_steps": 2, "validate_every": 2, "jit": "off"},
        **{"num_val_episodes": 4, "num_test_episodes": 4},
    )
    data = many_classes()
    leo_tf.reproduce(config, tmp_path / "r", seeds=1, data=data)
    chosen = [
        load_run(tmp_path / "r" / name).config.features
        for name in ("selection", "seed_0")
    ]
    # On training and validation classes together there would be 16.
    assert chosen[0] == chosen[1] and chosen[0].transform_dims == 8


def test_methods_on_transforms_of_their_own_are_compared(tmp_path, quick_jobs):
    random, splits = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        centres = np.repeat(random.normal(size=(12, 8)), 12, axis=0)
        noise = random.normal(size=centres.shape) * [5, 5, 5, 5, 0.3, 0.3, 0.3, 0.3]
        splits[split] = (
            centres + noise,
            np.repeat([f"{split}{i}" for i in range(12)], 12),
        )
    config = leo_tf.Config().replace(
        way=3, num_query=3, num_val_episodes=40, num_test_episodes=60
    )
    own = {"centroid": {"feature_transform": "lda"}}
    found = leo_tf.compare(
        config,
        ["centroid", "centroid_euclidean"],
        tmp_path / "c",
        method_settings=own,
        data=leo_tf.load_data(splits),
    )
    transformed, plain = found.rows
    assert transformed.accuracy.mean > plain.accuracy.mean + 0.1
    assert {"transform_dims", "transform_shrinkage"} <= transformed.chosen.keys()
    assert [row.title for row in found.rows] == [
        "Nearest centroid, lda",
        "Nearest centroid (Euclidean)",
    ]


def test_a_table_is_named_by_a_transform_only_if_all_rows_stand_on_that(
    tmp_path, quick_jobs, tiny_data
):
    config = leo_tf.Config().replace(
        **{"dataset_name": "tiny", "data_path": str(tiny_data), "way": 3},
        **{"num_query": 3, "num_val_episodes": 4, "num_test_episodes": 4},
        **{"feature_transform": "lda", "transform_dims": 3},
    )
    named = {"a": {}, "b": {"centroid": {"transform_dims": 2}}}
    named["c"] = {"centroid": {"feature_transform": "none"}}
    methods = ["centroid", "centroid_euclidean"]
    found = {
        name: leo_tf.compare(config, methods, tmp_path / name, method_settings=own)
        for name, own in named.items()
    }
    assert found["a"].dataset == "tiny (lda, dims 3)"
    assert found["b"].dataset == found["c"].dataset == "tiny"
    titles = {name: [row.title for row in each.rows] for name, each in found.items()}
    assert titles["a"] == [METHODS[name].title for name in methods]
    assert titles["b"] == [f"{title}, lda" for title in titles["a"]]
    assert titles["c"] == [titles["a"][0], titles["b"][1]]


def test_of_equally_good_transforms_the_most_regularised_is_taken(
    monkeypatch, tiny_data
):
    config = leo_tf.Config().replace(
        **{"dataset_name": "tiny", "data_path": str(tiny_data), "way": 3},
        **{"num_query": 3, "method": "centroid", "feature_transform": "lda"},
    )
    splits = dataset.load(config)
    monkeypatch.setattr(validation_tuning, "_ENOUGH_CLASSES", 2)
    monkeypatch.setattr(validation_tuning, "_DIMS", (2, 3))
    tried = []

    def level(transforms, unused_episodes):
        tried.extend(transforms)
        return [0.5] * len(transforms)

    monkeypatch.setattr(validation_tuning, "_centroid_accuracies", level)
    svd = mock.Mock(wraps=np.linalg.svd)
    monkeypatch.setattr(np.linalg, "svd", svd)
    found = fit_transform(config, splits)
    assert len(tried) == 3 * 5, "two of these dims, or all seven"
    assert svd.call_count == 5, "one for each shrinkage, whatever the dims"
    for number, shrinkage in enumerate((0.9, 0.5, 0.1, 0.01, 0.001)):
        alone = Statistics(splits["train"].table).transform("lda", 3, shrinkage)
        np.testing.assert_array_equal(tried[5 + number].kernel, alone.kernel)
    assert found.features.transform_dims == 2
    assert found.features.transform_shrinkage == 0.9


def many_classes(most=11) -> Data:
    """Splits of 9, `most` and 6 classes. More than 9 are enough to choose on."""
    random, splits = np.random.default_rng(0), {}
    for split, classes in {"train": 9, "val": most, "test": 6}.items():
        centres = np.repeat(random.normal(size=(classes, 16)), 12, axis=0)
        labels = np.repeat([f"{split}{i}" for i in range(classes)], 12)
        splits[split] = centres + random.normal(size=centres.shape), labels
    return leo_tf.load_data(splits)


_SMALL = {
    **{"feature_transform": "lda", "way": 3, "num_query": 3, "num_steps": 40},
    **{"validate_every": 20, "num_val_episodes": 20, "num_test_episodes": 4},
    # LEO takes longer to trace than to train.
    **{"method": "protonet", "jit": "off", "meta_batch_size": 2},
}


@pytest.fixture
def short_runs(monkeypatch):
    """Makes short runs of 2 steps, before training of 20 or more."""
    for module in (validation_tuning, train_job):
        monkeypatch.setattr(module, "SHORT_STEPS", 2)
    monkeypatch.setattr(validation_tuning, "_TRAINED_DIMS", (2, 4))


def test_a_trained_method_takes_the_dims_that_short_runs_prefer(
    monkeypatch, short_runs
):
    monkeypatch.setattr(validation_tuning, "_TRAINED_DIMS", (2, 4, 6, 64))
    tried = []

    def compare(options):
        tried.append(options)
        return [0.3, 0.5, 0.5, 0.4]

    config = leo_tf.Config().replace(**_SMALL)
    data = many_classes()
    splits = dataset.load(config, data=data)
    found = fit_transform(config, splits, compare)
    [options] = tried
    assert [o.features.transform_dims for o in options] == [2, 4, 6, 8], "8 are most"
    assert [o.transform.kernel.shape[1] for o in options] == [2, 4, 6, 8]
    assert found is options[1], "of equally good ones the fewest"
    plain = fit_transform(config, splits)
    assert plain.features.transform_dims == 8, "64 at most, without short runs"
    shrinkages = {o.features.transform_shrinkage for o in options}
    assert shrinkages == {plain.features.transform_shrinkage}
    tried.clear()
    given = fit_transform(config.replace(transform_dims=3), splits, compare)
    assert given.features.transform_dims == 3
    for other in (
        {"method": "centroid"},
        {"feature_transform": "soft"},
        {"train_on_val": True},
        {"num_steps": 19},
    ):
        fit_transform(config.replace(**other), splits, compare)
    few = dataset.load(config, data=many_classes(9))
    assert fit_transform(config, few, compare).features.transform_dims == 8
    assert not tried


def test_where_all_short_runs_diverge_it_takes_the_usual_dims(monkeypatch, short_runs):
    monkeypatch.setattr(validation_tuning, "_TRAINED_DIMS", (2, 4, 64))
    config = leo_tf.Config().replace(**_SMALL)
    splits = dataset.load(config, data=many_classes())
    nan = math.nan
    chosen = {(nan, nan, nan): 8, (nan, 0.4, 0.3): 4, (0.3, nan, nan): 2}
    for accuracies, best in chosen.items():
        found = fit_transform(config, splits, lambda _, each=accuracies: [*each])
        assert found.features.transform_dims == found.transform.kernel.shape[1] == best


def test_a_short_run_that_diverges_ends_and_says_so(monkeypatch):
    config = leo_tf.Config().replace(**_SMALL, transform_dims=5, non_finite_limit=3)

    def never_finite(*unused):
        return lambda iterator, first, count: {"non_finite": count}

    monkeypatch.setattr(short_run, "make_steps", never_finite)
    monkeypatch.setattr(short_run, "evaluate", lambda *_: pytest.fail("validated"))
    splits = dataset.load(config, data=many_classes())
    fitted = fit_transform(config, splits)
    with SILENT.progress("short", 40) as line:
        given = config, splits, fitted.transform, line, Replicas()
        assert math.isnan(accuracy_after(40, *given))
        assert line.done >= 4


_MIXED = {"way": "2-4", "shot": "1-2", "test_way": 3}


@pytest.mark.parametrize("mixed", [{}, pytest.param(_MIXED, marks=pytest.mark.long)])
def test_a_short_run_makes_the_first_steps_of_training(tmp_path, mixed):
    data = many_classes()
    config = leo_tf.Config().replace(**_SMALL, transform_dims=5).replace(**mixed)
    short = config.replace(num_steps=2)
    run = leo_tf.train(short, tmp_path / "run", data=data)
    splits = dataset.load(config, data=data)
    fitted = fit_transform(config, splits)
    with SILENT.progress("short", 2) as line:
        given = config, splits, fitted.transform, line, Replicas()
        found = accuracy_after(2, *given)
        assert line.done == 2
    # But for Welford's sum in place of the mean.
    assert found == pytest.approx(run.history[-1]["val_accuracy"], rel=1e-6)
    assert accuracy_after(40, *given) != found


@pytest.mark.long
def test_dims_are_chosen_by_short_runs_kept_and_told(
    tmp_path, monkeypatch, short_runs, capsys
):
    data = many_classes()
    config = leo_tf.Config().replace(**_SMALL)
    told, real = [], train_job.accuracy_after

    def noted(*given):
        told.append((given[0], real(*given)))
        return told[-1][1]

    monkeypatch.setattr(train_job, "accuracy_after", noted)
    run = leo_tf.train(config, tmp_path / "run", data=data, console=Console())
    assert [steps for steps, _ in told] == [2, 2]
    accuracies = [accuracy for _, accuracy in told]
    best = (2, 4)[int(np.argmax(accuracies))]
    assert run.config.features.transform_dims == run.chosen["transform_dims"] == best
    assert run.transform.kernel.shape[1] == best
    lines = capsys.readouterr().err.splitlines()
    told_first = "Choosing from 2, 4 discriminants: 2 steps each. "
    assert any(line.startswith(told_first) for line in lines)
    each = ", ".join(f"{100 * accuracy:.2f} %" for accuracy in accuracies)
    assert f"Validation accuracies: {each}." in lines
    again = leo_tf.train(config, tmp_path / "run", data=data)
    assert len(told) == 2, "what is resumed chooses nothing again"
    assert again.config.features == run.config.features
    # A comparison's run chooses by itself, and alike.
    compared = leo_tf.compare(
        config, ["protonet", "ridge"], tmp_path / "both", data=data
    )
    chosen = {row.name: row.chosen["transform_dims"] for row in compared.rows}
    assert chosen["protonet"] == best and len(told) == 4


@pytest.mark.long
def test_after_a_stop_only_the_short_runs_that_had_not_ended_are_made(
    tmp_path, monkeypatch, short_runs
):
    config, data = leo_tf.Config().replace(**_SMALL), many_classes()
    tried, real = [], train_job.accuracy_after

    def stopped(*given):
        tried.append(given[1].features.transform_dims)
        if len(tried) == 2:
            advance = given[4].advance
            monkeypatch.setattr(
                given[4],
                "advance",
                lambda n: (advance(n), signal.raise_signal(signal.SIGTERM)),
            )
        return real(*given)

    monkeypatch.setattr(train_job, "accuracy_after", stopped)
    with pytest.raises(Stopped):
        leo_tf.train(config, tmp_path / "run", data=data)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        ".lock",
        "discriminants.json",
    }
    run = leo_tf.train(config, tmp_path / "run", data=data)
    assert tried == [2, 4, 4] and run.state.step == 40
    whole = leo_tf.train(config, tmp_path / "whole", data=data)
    assert whole.config.features == run.config.features and tried[3:] == [2, 4]
    # Those of other settings say nothing.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "run" / "discriminants.json", other)
    leo_tf.train(config.replace(outer_lr=0.01), other, data=data)
    assert tried[5:] == [2, 4]


def test_transforms_are_tried_by_the_accuracy_of_nearest_centroid(tiny_data):
    config = leo_tf.Config().replace(
        **{"dataset_name": "tiny", "data_path": str(tiny_data), "way": 3},
    )
    config = config.replace(num_query=3)
    splits = dataset.load(config)
    statistics = Statistics(splits["train"].table)
    tried = [statistics.transform("lda", dims, 0.1) for dims in (2, 5)]
    episodes = dataset.evaluation_episodes(config, splits["val"], 20)
    learners = {str(i): Transformed(NearestCentroid(), t) for i, t in enumerate(tried)}
    expected = [s.accuracy.mean() for s in evaluate_all(learners, episodes).values()]
    found = validation_tuning._centroid_accuracies(tried, episodes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] != found[1]


def test_classes_that_tell_nothing_are_refused_for_a_transform_that_asks_them():
    random = np.random.default_rng(0)
    labels, names = np.repeat([0, 1], 5), ("a", "b")
    two = EmbeddingTable(random.normal(size=(10, D)), labels, names, source="two.npz")
    few = FeatureTable.from_embeddings(two)
    for kind in ("lda", "soft"):
        with pytest.raises(InputError, match=f"classes: .* 3 or more for .*={kind}"):
            check_can_fit(kind, few)
    for kind in ("none", "center", "within"):
        check_can_fit(kind, few)
    equal = table(rows=1)
    for kind in ("within", "lda", "soft"):
        with pytest.raises(InputError, match=r"some.npz: classes: .*rows that differ"):
            check_can_fit(kind, equal)
        check_can_fit(kind, table())
    check_can_fit("center", equal)
