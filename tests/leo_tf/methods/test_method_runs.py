"""Runs of methods other than LEO: trained or not, tested, evaluated, exported."""

import json

import numpy as np
import pytest
import tensorflow as tf
from exported_models import (
    export,
    make_request,
    temperature_of,
    tensors,
    training_answers,
)
from saved_runs import chosen_on, listing, manifest_of, results_of, values_of

from leo_tf.cli import main as command_line
from leo_tf.cli.flags import parse
from leo_tf.errors import CheckpointError
from leo_tf.evaluation import validation_tuning as choices
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.methods import registry as methods
from leo_tf.runs.run import load_run

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_jobs")]
_FEW = ("--num_steps=4", "--validate_every=2")
# To fit it eleven times would take seconds.
_GIVEN = {
    "distribution_calibration": ("--logistic_strength=0.1", "--calibration_samples=6")
}
UNTRAINED = [name for name, method in methods.METHODS.items() if not method.is_trained]


def config_of(workdir) -> dict:
    return json.loads((workdir / "config.json").read_text())


def evaluated(workdir, *flags):
    mode = ["--mode=evaluate", f"--workdir={workdir}"]
    return evaluate_run(workdir, **parse(["run_leo.py", *mode, *flags]).explicit)


@pytest.fixture(scope="module")
def runs(train, quick_jobs, tmp_path_factory):
    """Name of a method -> the directory of its finished run, made when asked for."""
    made = {}

    def run(method: str):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "run"
            flags = f"--method={method}", *_FEW, *_GIVEN.get(method, ()), "--quiet"
            assert train(made[method], *flags) == 0
        return made[method]

    return run


@pytest.mark.parametrize("method", ["meta_sgd", "leo_random_prior", "generator"])
def test_it_is_the_method_asked_for_whose_variables_are_trained(runs, method):
    before, after = (values_of(runs(method), step) for step in (2, 4))
    held = {name for name in before if not name.startswith("adam/")}
    config = parse(["run_leo.py", f"--method={method}", "--way=3"]).config
    config = config.replace(num_latents=4)
    mine = {v.path: v for v in methods.build(config, 8).trainable_variables}
    assert held == mine.keys()
    moved = [name for name in mine if not np.array_equal(before[name], after[name])]
    assert sorted(moved) == sorted(mine)


@pytest.mark.parametrize("residual", ["centroid", "ridge"])
def test_leo_as_a_residual_is_trained_resumed_mixed_and_exported(
    train, tmp_path, residual
):
    flags = f"--residual={residual}", "--ensemble=logistic", "--quiet", *_FEW[1:]
    assert train(tmp_path / "whole", *flags, "--num_steps=4") == 0
    assert train(tmp_path / "run", *flags, "--num_steps=2") == 0
    more = "--num_steps=4", "--allow_changes"
    assert train(tmp_path / "run", *flags, *more) == 0
    whole, resumed = (values_of(tmp_path / name, 4) for name in ("whole", "run"))
    learned = {"leo/log_scale", *(["leo/log_strength"] if residual == "ridge" else [])}
    assert learned <= whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    start = values_of(tmp_path / "whole", 2)
    assert all(start[name] != whole[name] for name in learned)
    assert export(tmp_path / "whole", tmp_path / "out") == 0
    signature = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures["classify"]
    request = make_request()
    run = load_run(tmp_path / "whole")
    run.restore_best()
    temperature = temperature_of(tmp_path / "whole")
    expected = training_answers(run.learner, 3, 2, request, temperature)["logits"]
    given = signature(**tensors(request))["logits"]
    np.testing.assert_allclose(given, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("method", UNTRAINED)
def test_a_method_without_training_makes_no_step_and_is_tested(runs, method):
    results = results_of(runs(method))
    assert (results["step"], results["steps_trained"]) == (0, 0)
    assert next(iter(results["accuracy"])) == method
    assert sorted(runs(method).rglob("step-*"))[0].name == "step-00000000"
    # Its choices are metadata of the run.
    chosen = methods.METHODS[method].chosen
    assert chosen and all(config_of(runs(method))["methods"][name] for name in chosen)
    accuracy = results["accuracy"][method]["mean"]
    history = manifest_of(runs(method), 0)["progress"]["history"]
    assert accuracy > 0.5 and history[0]["val_accuracy"] > 0.5, "a third is chance"


@pytest.mark.parametrize(
    "method", ["ridge", "centroid", "maml", "distribution_calibration"]
)
def test_evaluating_any_method_gives_the_results_of_its_run(runs, method):
    before = listing(runs(method))
    results = evaluated(runs(method))
    assert listing(runs(method)) == before
    saved = results_of(runs(method))
    assert results.methods[method].mean == saved["accuracy"][method]["mean"]
    assert results.losses[method] == saved["accuracy"][method]["loss"]
    if method != "centroid":
        difference = saved[f"{method}_minus_centroid"]["mean"]
        assert results.difference.mean == difference


def test_the_table_is_titled_by_the_method(runs, evaluate, capsys):
    ridge, centroid = runs("ridge"), runs("centroid")  # may train, and print
    capsys.readouterr()
    evaluate(ridge, "--quiet")
    table = capsys.readouterr().out
    assert "Ridge regression" in table and "nearest centroid" in table
    assert "LEO" not in table and "difference" in table
    evaluate(centroid, "--quiet")
    table = capsys.readouterr().out
    assert table.count("centroid") == 1 and "difference" not in table


def test_choices_are_not_made_again_nor_held_against_the_same_command(
    runs, train, capsys, monkeypatch
):
    before = listing(runs("ridge"))["checkpoints/step-00000000/manifest.json"]
    monkeypatch.setattr(choices, "STRENGTHS", (7.0,))
    assert train(runs("ridge"), "--method=ridge", *_FEW) == 0
    assert "Chosen" not in capsys.readouterr().err
    assert listing(runs("ridge"))["checkpoints/step-00000000/manifest.json"] == before
    strength = config_of(runs("ridge"))["methods"]["ridge_strength"]
    other = f"--ridge_strength={2 * strength}"
    assert train(runs("ridge"), "--method=ridge", other, *_FEW) == 3
    assert "ridge_strength is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "setting"), [("ridge", "ridge_strength"), ("centroid", "score_scale")]
)
def test_choices_are_made_on_the_validation_episodes_not_on_those_of_the_test(
    runs, method, setting
):
    on_val, on_test = (chosen_on(runs(method), split) for split in ("val", "test"))
    assert on_val[setting] != on_test[setting], "else it tells nothing"
    saved = config_of(runs(method))["methods"]
    assert on_val.items() <= saved.items() and setting in on_val


def test_what_is_chosen_is_told_and_what_is_given_stays(train, tmp_path, capsys):
    flags = "--method=ridge", "--ridge_strength=0.5"
    assert train(tmp_path / "run", *flags) == 0
    told = capsys.readouterr().err
    assert "--score_scale=" in told and "--ridge_strength=" not in told
    assert config_of(tmp_path / "run")["methods"]["ridge_strength"] == 0.5


def test_another_method_in_the_directory_of_a_run_is_refused(runs, train, capsys):
    assert train(runs("ridge"), "--method=logistic", *_FEW) == 3
    assert "method is 'ridge' there and 'logistic' here" in capsys.readouterr().err


def test_steps_of_a_method_without_training_cannot_be_profiled(train, tmp_path, capsys):
    flags = "--method=centroid", "--profile_steps=1-2", "--quiet"
    assert train(tmp_path / "run", *flags) == 2
    assert "error: --profile_steps: expected a method" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_way_it_was_not_trained_for_is_refused_by_a_method_that_keeps_it(
    runs, evaluate, train, tmp_path, capsys
):
    assert evaluate(runs("maml"), "--test_way=4", "--quiet") == 2
    assert "error: --test_way: expected 3, as --way" in capsys.readouterr().err
    assert train(tmp_path / "run", "--method=maml", "--test_way=4", "--quiet") == 2
    assert evaluate(runs("maml"), "--test_shot=3", "--quiet") == 0
    assert evaluate(runs("ridge"), "--test_way=4", "--test_shot=3", "--quiet") == 0


@pytest.mark.parametrize("method", ["ridge", "meta_sgd"])
def test_any_method_is_exported_and_answers_as_in_its_test(runs, tmp_path, method):
    flags = "--mode=export", f"--workdir={runs(method)}", f"--export_dir={tmp_path}"
    assert command_line.main(["run_leo.py", *flags, "--quiet"]) == 0
    metadata = json.loads((tmp_path / "1" / "export.json").read_text())
    assert metadata["method"] == method
    mean = results_of(runs(method))["accuracy"][method]["mean"]
    assert metadata["test_accuracy"]["mean"] == mean
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    assert "classify" in loaded.signatures


def test_what_a_run_knows_of_its_training_classes_is_in_its_export(runs, tmp_path):
    workdir = runs("distribution_calibration")
    run, request = load_run(workdir), make_request(3, 2)
    run.restore_best()
    learner = run.learner
    assert learner.transform.centres.shape == (8, 8), "classes of 8 numbers"
    expected = training_answers(learner, 3, 2, request, temperature_of(workdir))
    assert export(workdir, tmp_path) == 0
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    answer = loaded.signatures["classify"](**tensors(request))
    np.testing.assert_allclose(answer["logits"], expected["logits"], atol=1e-3)
    assert np.abs(expected["logits"]).max() > 0.1
    sizes = {tuple(variable.shape) for variable in loaded.learned}
    assert sizes == {(8, 8), (8, 8, 8)}, "not numbers of the graph"
    (workdir / "transform.npz").rename(tmp_path / "transform.npz")
    with pytest.raises(CheckpointError, match=r"transform\.npz"):
        load_run(workdir).restore_best()
    (tmp_path / "transform.npz").rename(workdir / "transform.npz")


@pytest.mark.parametrize("kind,warned", [("center", True), ("none", False)])
def test_a_choice_on_classes_that_the_features_have_seen_is_warned_of(
    kind, warned, train, tmp_path, capsys
):
    flags = "--method=ridge", "--train_on_val", f"--feature_transform={kind}"
    assert train(tmp_path / "run", *flags) == 0
    said = "--train_on_val: --ridge_strength and --score_scale chosen on validation"
    given = "--ridge_strength=1", "--score_scale=1"
    assert (said in flat(capsys.readouterr().err)) == warned
    assert train(tmp_path / "given", *flags, *given) == 0
    assert "chosen on validation" not in flat(capsys.readouterr().err)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_what_is_fitted_to_balanced_episodes_is_told_of_a_transductive_method(
    runs, evaluate, train, tmp_path, capsys
):
    fitted = "sets: fitted to 3-way 1-shot balanced validation episodes"
    unbalanced = "--method=soft_kmeans", "--query_dirichlet=2"
    assert train(tmp_path / "run", *unbalanced) == 0
    said = "Temperature and sets: fitted to 3-way 1-shot Dirichlet 2 validation"
    for flags, is_told in ([], False), (["--query_dirichlet=5"], True):
        capsys.readouterr()
        assert evaluate(tmp_path / "run", *flags) == 0
        assert (said in flat(capsys.readouterr().err)) == is_told
    for method, flags, is_told in (
        ("soft_kmeans", ["--query_dirichlet=2"], True),
        ("soft_kmeans", [], False),
        ("logistic", ["--query_dirichlet=2"], False),
    ):
        assert evaluate(runs(method), *flags) == 0
        assert (fitted in flat(capsys.readouterr().err)) == is_told


def test_a_choice_made_for_other_episodes_is_told_of(runs, evaluate, capsys):
    assert evaluate(runs("logistic"), "--test_shot=2") == 0
    told = capsys.readouterr().err
    assert "--logistic_strength and --score_scale: tuned on 3-way" in told
    assert evaluate(runs("logistic"), "--query_dirichlet=2") == 0
    told = capsys.readouterr().err
    assert "--score_scale: tuned on 3-way 1-shot, balanced episodes, not on" in told
    assert (
        "3-way 1-shot, 9 queries unbalanced (Dirichlet 2)"
        in evaluated(runs("logistic"), "--query_dirichlet=2").title
    )
    for method, flag in (
        ("logistic", "--num_test_episodes=5"),
        ("maml", "--test_shot=2"),
    ):
        assert evaluate(runs(method), flag) == 0
        assert "tuned on" not in capsys.readouterr().err
