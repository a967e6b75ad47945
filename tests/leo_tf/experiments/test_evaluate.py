"""Evaluating a run directory: the numbers are right, and nothing is written."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from saved_runs import listing, results_of, values_of

from leo_tf.cli.flags import parse
from leo_tf.console import Console
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.errors import CheckpointError, FlagError, InputError
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.experiments.evaluate import score
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import build
from leo_tf.runs.checkpoints import Checkpoints


def accuracies_by_hand(workdir, tiny_data, episodes=8, way=3) -> dict:
    """Returns accuracies by episode: LEO as a layer, nearest centroid in NumPy."""
    config = parse(["run_leo.py", f"--data_path={tiny_data}"]).config.replace(
        **json.loads((workdir / "config.json").read_text())["episodes"],
        dataset_name="tiny",
        num_latents=4,
        inner_unroll_length=1,
        finetuning_unroll_length=1,
    )
    split = datasets.load(config, ["test"])["test"]
    leo = build(config, split.embedding_size)
    step = json.loads((workdir / "best" / "checkpoint.json").read_text())["step"]
    values = values_of(workdir, step)
    for variable in leo.variables:
        variable.assign(values[variable.path])
    right = {"leo": [], "centroid": []}
    for batch in datasets.evaluation_episodes(config, split, episodes):
        for i in range(len(batch.support_inputs)):
            support, labels, query, answers = (part[i : i + 1] for part in batch)
            logits = leo(support, labels, query).numpy()
            right["leo"].append((logits.argmax(-1) == answers.numpy()).mean())
            centroid = support.numpy()[0].mean(axis=1)  # [N, D]
            centroid /= np.linalg.norm(centroid, axis=-1, keepdims=True)
            taken_for = (query.numpy()[0] @ centroid.T).argmax(-1)  # [N, Q]
            right["centroid"].append((taken_for == answers.numpy()[0]).mean())
    return {name: np.array(values) for name, values in right.items()}


def mean_and_half_width(values) -> dict:
    half_width = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": values.mean(), "half_width_95": half_width}


def test_results_are_those_of_an_evaluation_by_hand(trained, tiny_data):
    results = results_of(trained)
    right = accuracies_by_hand(trained, tiny_data)
    for name, values in right.items():
        found = {
            key: results["accuracy"][name][key] for key in ("mean", "half_width_95")
        }
        assert found == pytest.approx(mean_and_half_width(values), abs=1e-6)
    assert results["leo_minus_centroid"] == pytest.approx(
        mean_and_half_width(right["leo"] - right["centroid"]), abs=1e-6
    )


def evaluated(workdir, *flags):
    mode = ["--mode=evaluate", f"--workdir={workdir}"]
    return evaluate_run(workdir, **parse(["run_leo.py", *mode, *flags]).explicit)


def test_evaluating_gives_the_results_of_training_and_writes_nothing(trained):
    before = listing(trained)
    results = evaluated(trained)
    assert listing(trained) == before
    saved = results_of(trained)
    for name, accuracy in results.methods.items():
        assert accuracy.mean == saved["accuracy"][name]["mean"]
        assert accuracy.half_width == saved["accuracy"][name]["half_width_95"]
        assert results.losses[name] == saved["accuracy"][name]["loss"]
    assert results.difference.mean == saved["leo_minus_centroid"]["mean"]
    title = f"3-way 1-shot, 11 queries per class, step {saved['step']}"
    assert results.title == f"tiny, test: {title}"


@pytest.mark.usefixtures("quick_job")
def test_it_is_the_best_that_is_evaluated_not_the_latest(trained_copy, tiny_data):
    losses = set()
    for step in (5, 10, 12):
        Checkpoints(trained_copy).mark_best(step)
        results = evaluated(trained_copy)
        assert results.title.endswith(f", step {step}")
        by_hand = accuracies_by_hand(trained_copy, tiny_data)["leo"].mean()
        assert results.methods["leo"].mean == pytest.approx(by_hand, abs=1e-6)
        losses.add(results.losses["leo"])
    assert len(losses) == 3, "else nothing was shown"


@pytest.mark.usefixtures("quick_job")
def test_the_test_may_have_another_shape_and_length(trained):
    flags = ["--test_way=5", "--test_shot=2", "--test_num_query=4"]
    results = evaluated(trained, *flags, "--num_test_episodes=6")
    assert results.episodes == 6
    assert "test: 5-way 2-shot, 4 queries per class" in results.title
    # 5 * 4 queries per episode, 6 episodes: accuracies are 120ths.
    correct = results.methods["centroid"].mean * 120
    assert correct == pytest.approx(round(correct), abs=1e-4)


@pytest.mark.usefixtures("quick_job")
def test_the_test_may_be_of_other_data(trained, tiny_data, tmp_path, write_split):
    data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "moved"))
    assert evaluated(trained, f"--data_path={data}") == evaluated(trained)
    write_split(data / "tiny" / "test.npz", "test", 9, seed=7)
    for other in ("train", "val"):  # only the test split is needed
        (data / "tiny" / f"{other}.npz").unlink()
    assert evaluated(trained, f"--data_path={data}") != evaluated(trained)


def test_features_of_another_size_are_refused(
    trained, tiny_data, tmp_path, write_split
):
    features = np.random.default_rng(0).normal(size=[84, 9]).astype(np.float32)
    data = tmp_path / "data"
    write_split(data / "tiny" / "test.npz", "test", 7, seed=0, embeddings=features)
    with pytest.raises(InputError, match=r"`embeddings`: .*D = 8, as trained.* 9"):
        evaluated(trained, f"--data_path={data}")


@pytest.mark.parametrize(
    ("flag", "expected", "received"),
    [
        ("--way=5", "3", "5"),
        ("--dropout_rate=0.1", "0.5", "0.1"),
        ("--num_steps=13", "12", "13"),
        ("--seed=1", "0", "1"),
        ("--dtype=float64", "'float32'", "'float64'"),
        ("--preset=glyphs", "''", "'glyphs'"),
        ("--train_on_val", "False", "True"),
        ("--val_classes=2", "0", "2"),  # the test is the same
    ],
)
def test_a_hyperparameter_other_than_the_trained_one_is_refused_by_its_name(
    trained, flag, expected, received
):
    with pytest.raises(FlagError) as caught:
        evaluated(trained, flag)
    assert caught.value.where == flag.split("=")[0]
    assert caught.value.expected == f"{expected}, as trained"
    assert caught.value.received == received


@pytest.mark.usefixtures("quick_job")
def test_the_flags_of_the_training_may_be_repeated(trained, small_flags):
    assert evaluated(trained, *small_flags) == evaluated(trained)


def test_a_run_that_was_never_validated_cannot_be_evaluated(trained_copy):
    shutil.rmtree(trained_copy / "best")
    with pytest.raises(CheckpointError, match="Train first"):
        evaluated(trained_copy)


def test_other_data_in_the_same_place_is_refused_unless_it_is_asked_for(
    trained, tiny_data, tmp_path, write_split, evaluate, capsys
):
    data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))
    workdir = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["data_path"] = str(data)
    (workdir / "config.json").write_text(json.dumps(config))
    assert evaluate(workdir, "--quiet") == 0
    write_split(data / "tiny" / "test.npz", "test", 9, seed=7)
    capsys.readouterr()
    assert evaluate(workdir) == 3
    assert "the run's own test data" in capsys.readouterr().err
    assert evaluate(workdir, f"--data_path={data}", "--dataset_name=tiny") == 0
    assert "This is not the test data of the run." in capsys.readouterr().err


@pytest.mark.usefixtures("quick_job")
def test_a_run_is_evaluated_from_any_directory(
    train, evaluate, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_data.parent)
    flags = (f"--data_path={tiny_data.name}", "--num_steps=1", "--quiet")
    assert train(tmp_path / "run", *flags) == 0
    monkeypatch.chdir(tmp_path)
    assert evaluate(tmp_path / "run", "--quiet") == 0


def test_results_are_titled_by_the_data_they_are_of(
    trained, tiny_data, tmp_path, evaluate, capsys
):
    flat = pathlib.Path(shutil.copytree(tiny_data / "tiny", tmp_path / "others"))
    assert evaluate(trained, f"--data_path={flat}", "--quiet") == 0
    assert capsys.readouterr().out.strip().startswith("others, test")


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("model", "num_latents", 5),
        ("methods", "method", "maml"),
        ("data", "dtype", "float64"),
    ],
)
def test_a_config_whose_variables_no_checkpoint_has_is_refused_before_any_is_made(
    trained_copy, capsys, group, name, value
):
    path = trained_copy / "config.json"
    config = json.loads(path.read_text())
    config[group][name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=name) as caught:
        evaluated(trained_copy)
    assert str(trained_copy / "checkpoints") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding_size", None),
        ("embedding_size", [[1] * 9] * 99),
        ("data", []),
        ("data", {}),
        ("config", []),
        ("config", {"model": 3}),
    ],
)
def test_a_manifest_that_lacks_what_a_test_needs_is_refused_in_a_line(
    trained_copy, name, value
):
    best = json.loads((trained_copy / "best/checkpoint.json").read_text())["directory"]
    path = trained_copy / "checkpoints" / best / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, name: value}))
    with pytest.raises((CheckpointError, InputError)) as caught:
        evaluated(trained_copy)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("logits", [np.nan, 1.0])
def test_scores_that_are_not_finite_are_warned_of(tiny_data, capsys, logits):
    class Broken(NearestCentroid):
        def logits(self, classifier, inputs):
            return super().logits(classifier, inputs) * logits

    config = parse(["run_leo.py", f"--data_path={tiny_data}"]).config
    config = config.replace(dataset_name="tiny", way=3, num_query=2)
    config = config.replace(num_test_episodes=4)
    split = datasets.load(config, ["test"])["test"]
    score({"mine": Broken()}, config, split, Console(quiet=True))
    said = capsys.readouterr().err
    assert ("mine: scores are NaN or infinite in 4 of 4 test" in said) == (logits != 1)
