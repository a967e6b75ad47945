"""A trained method and a closed form together, and how a run mixes them.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding size.
"""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from saved_runs import results_of
from tiny_cases import D, N, make_episode, make_leo

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.errors import CheckpointError, DivergedError, FlagError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.validation_tuning import SHARES
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.experiments.train import fitting_confidence
from leo_tf.export.exporter import export_model
from leo_tf.methods.ensemble import Ensemble, Mix, together, without_other
from leo_tf.methods.inductive.linear import LinearRegression, ridge
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import check
from leo_tf.methods.transformed import Transformed
from leo_tf.methods.transforms import Transform
from leo_tf.model.learner import Learner, adapt_and_score, is_exportable
from leo_tf.runs.run import load_run

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_jobs")]


def mix(share=0.3, temperature=0.5, other=2.0):
    return Mix(4, "digest", "ridge", {}, share, temperature, other, (0.5, 0.1))


def scores_of(learner, episode):
    return adapt_and_score(learner, episode)[1].numpy()


@pytest.mark.parametrize("other,size", [(ridge, D + 1), (None, D)])
def test_scores_are_the_weighted_sum_of_both_after_their_temperatures(other, size):
    leo, episode = make_leo(), make_episode()
    other = LinearRegression(ridge, 0.3) if other else NearestCentroid()
    mixed = scores_of(Ensemble(leo, other, size, mix()), episode)
    expected = 0.7 / 0.5 * scores_of(leo, episode) + 0.3 / 2 * scores_of(other, episode)
    np.testing.assert_allclose(mixed, expected, rtol=1e-9)


def test_on_a_transform_both_get_its_features():
    random = np.random.default_rng(0)
    kernel = random.normal(size=[D, 4])
    transform = Transform(1.0, random.normal(size=[D]), kernel)
    leo, other, episode = make_leo(size=4), LinearRegression(ridge, 0.3), make_episode()
    alone = Transformed(leo, transform)
    mixed = together(alone, other, 5, mix())
    expected = 0.7 / 0.5 * scores_of(alone, episode)
    expected += 0.3 / 2 * scores_of(Transformed(other, transform), episode)
    np.testing.assert_allclose(scores_of(mixed, episode), expected, rtol=1e-9)
    again = without_other(mixed)
    assert again.learner is leo and again.transform is transform
    assert without_other(alone).learner is leo


def test_it_can_be_exported_if_its_learner_can():
    class EvenOnly(Learner):
        def adapt(self, *given, **named):
            raise NotImplementedError

    for learner, can_be in ((make_leo(), True), (EvenOnly(), False)):
        mixed = together(learner, LinearRegression(ridge, 0.3), D + 1, mix())
        assert is_exportable(mixed) == is_exportable(learner) == can_be


def test_uneven_support_sets_get_what_even_ones_do():
    episode = make_episode(tasks=1)
    mixed = Ensemble(make_leo(), LinearRegression(ridge, 0.3), D + 1, mix())
    support = tf.reshape(episode.support_inputs, [-1, D])
    labels = tf.reshape(episode.support_labels, [-1])
    adapted = mixed.adapt_uneven(support, labels, tf.constant(N))
    even = mixed.adapt(episode.support_inputs, episode.support_labels).classifier
    np.testing.assert_allclose(adapted.classifier, even[0], rtol=1e-6)
    assert adapted.latents_after.shape[1] > 0


def test_what_is_kept_is_read_again_and_nothing_else_is():
    kept = mix()._replace(settings={"ridge_strength": 0.1})
    values = json.loads(json.dumps(kept.as_dict()))
    assert Mix.from_dict(values) == kept
    for change in (
        {"share": 1.5},
        {"share": "0.5"},
        {"temperature": 0.0},
        {"settings": {"ridge_strength": -1.0}},
        {"settings": None},
        {"validation": [0.5]},
        {"step": "4"},
    ):
        with pytest.raises(ValueError):
            Mix.from_dict({**values, **change})


@pytest.fixture(scope="module")
def ensemble_run(train, quick_jobs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ensemble") / "run"
    assert train(workdir, "--quiet", "--ensemble=ridge") == 0
    return workdir


def test_a_run_takes_the_share_that_is_best_on_validation_episodes(ensemble_run):
    run = load_run(ensemble_run)
    found = run.mix(run.checkpoints.best())
    split = dataset.load(run.config, ["val"])["val"]
    run.restore_best()
    count, config = run.config.run.num_val_episodes, run.config
    episodes = dataset.evaluation_episodes(config, split, count)

    def accuracy(share):
        run.learner.mix = found._replace(share=share)
        return evaluate({"": run.learner}, episodes)[""].accuracy.mean()

    accuracies = [round(accuracy(share), 6) for share in SHARES]  # ties, in float32
    assert found.share == SHARES[int(np.argmax(accuracies))]
    assert found.validation[0] == pytest.approx(max(accuracies), abs=1e-6)
    assert run.validation.mean == found.validation[0]
    assert run.chosen == {**found.settings, "ensemble_share": found.share}


def test_a_run_is_tested_and_exported_as_both(ensemble_run, trained, tmp_path):
    run, alone = load_run(ensemble_run), load_run(trained)
    run.restore_best()
    alone.restore_best()
    for mine, other in zip(
        run.learner.trainable_variables, alone.learner.trainable_variables
    ):
        # Training knows nothing of it.
        np.testing.assert_allclose(mine, other, atol=1e-5)
    tested = results_of(ensemble_run)["accuracy"]["leo"]
    assert tested["loss"] != results_of(trained)["accuracy"]["leo"]["loss"]
    again = evaluate_run(ensemble_run)
    assert again.accuracy.mean == pytest.approx(tested["mean"], abs=1e-9)
    exported = tf.saved_model.load(str(export_model(ensemble_run, tmp_path / "out")))
    size = run.checkpoints.best().entry("embedding_size", int)
    support = np.random.default_rng(0).normal(size=[6, size]).astype("float32")
    labels = tf.constant([0, 1, 2, 0, 1, 2], tf.int64)
    classifier = exported.adapt(support, labels)["classifier"]
    fitted = run.confidence(run.checkpoints.best())
    means = size if fitted.score == "cosine" else 0
    assert classifier.shape == [3, 2 * size + 1 + means]
    unit = support / np.linalg.norm(support, axis=1, keepdims=True)
    adapted = run.learner.adapt_uneven(tf.constant(unit), labels, tf.constant(3))
    np.testing.assert_allclose(
        classifier[:, : 2 * size + 1], adapted.classifier, rtol=1e-4, atol=1e-5
    )


def test_a_share_of_nothing_changes_no_answer_and_a_given_one_is_kept(
    train, trained, tmp_path
):
    workdir = tmp_path / "run"
    assert train(workdir, "--quiet", "--ensemble=ridge", "--ensemble_share=0") == 0
    mine, alone = (results_of(each)["accuracy"]["leo"] for each in (workdir, trained))
    assert mine["mean"] == pytest.approx(alone["mean"])
    assert load_run(workdir).chosen["ensemble_share"] == 0


@pytest.mark.parametrize("flag", ["--mixed_precision", "--test_samples=2"])
def test_what_only_the_trained_method_can_do_stops_no_ensemble(flag, train, tmp_path):
    workdir = tmp_path / "run"
    assert train(workdir, "--quiet", "--ensemble=ridge", flag, "--num_steps=1") == 0
    assert results_of(workdir)["ensemble"]["other"] == "ridge"
    assert evaluate_run(workdir).accuracy.mean > 0


def test_another_ensemble_is_made_anew_and_so_is_what_was_fitted_to_it(
    ensemble_run, train, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(ensemble_run, copy)
    before = load_run(copy)
    mixed, fitted = (
        f(before.checkpoints.best()) for f in (before.mix, before.confidence)
    )
    asked = "--quiet", "--allow_changes", "--ensemble=centroid", "--ensemble_share=0.9"
    assert train(copy, *asked) == 0
    after = load_run(copy)
    again, anew = (f(after.checkpoints.best()) for f in (after.mix, after.confidence))
    assert (again.other, again.share) == ("centroid", 0.9) != (mixed.other, mixed.share)
    assert anew.temperature != fitted.temperature
    assert results_of(copy)["ensemble"]["share"] == 0.9
    assert train(copy, *asked) == 0  # and then it is known
    assert load_run(copy).mix(after.checkpoints.best()) == again


def test_a_run_that_diverged_has_the_ensemble_of_its_best(ensemble_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ensemble_run, copy)
    (copy / "ensemble.json").unlink()
    run = load_run(copy)
    split = dataset.load(run.config, ["val"])["val"]
    with pytest.raises(DivergedError), fitting_confidence(run, split):
        raise DivergedError("step 9", "finite numbers", "NaN")
    assert load_run(copy).mix(run.checkpoints.best()).share >= 0


@pytest.mark.parametrize(
    "flags,said",
    [
        (
            ["--mode=search", "--ensemble=ridge"],
            "--ensemble: expected none with --mode",
        ),
        (["--mode=reproduce", "--ensemble=ridge"], "--ensemble: expected none with"),
        (
            ["--ensemble_share=0.5"],
            "--ensemble_share: expected none without --ensemble",
        ),
    ],
)
def test_an_ensemble_that_would_be_ignored_is_refused_at_once(
    flags, said, train, tmp_path, capsys
):
    assert train(tmp_path / "run", *flags) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_its_file_a_run_says_how_to_make_it(ensemble_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ensemble_run, copy)
    (copy / "ensemble.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        evaluate_run(copy)
    assert "ensemble.json" in str(caught.value)
    assert "The command that trained the run writes it" in str(caught.value)


@pytest.mark.parametrize("changes", [{"method": "ridge"}, {"train_on_val": True}])
def test_an_ensemble_needs_training_and_classes_to_choose_on(changes):
    config = Config().replace(ensemble="ridge", **changes)
    with pytest.raises(FlagError) as caught:
        check(config)
    assert caught.value.where == "--ensemble"
