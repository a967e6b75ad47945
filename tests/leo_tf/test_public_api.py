"""`import leo_tf`: quick, and enough for a notebook."""

import csv
import os
import runpy
import shutil
import signal
import subprocess
import sys
import traceback
import types

import numpy as np
import pytest
from forks import in_fork
from saved_runs import listing, results_of, values_of

import leo_tf
from leo_tf.errors import CallbackError, FlagError, InputError, LeoError, Stopped

pytestmark = pytest.mark.usefixtures("quick_jobs")
SETTINGS = {
    "way": 3,
    "num_query": 3,
    "meta_batch_size": 2,
    "num_latents": 4,
    "inner_unroll_length": 1,
    "finetuning_unroll_length": 1,
    "num_val_episodes": 6,
    "num_test_episodes": 8,
    "num_steps": 6,
    "validate_every": 3,
    "log_every": 2,
    "outer_lr": 0.02,
    "jit": "off",
}


def config(**changes):
    return leo_tf.Config().replace(**{**SETTINGS, **changes})


def arrays(seed=0, size=8):
    """Split -> (x, y) of noisy clusters, as somebody has them in a notebook."""
    random, found = np.random.default_rng(seed), {}
    for split, classes in {"train": 8, "val": 6, "test": 7}.items():
        centres = np.repeat(random.normal(size=(classes, size)), 12, axis=0)
        y = np.repeat([f"{split}{i}" for i in range(classes)], 12)
        found[split] = centres + random.normal(size=centres.shape), y
    return found


class Tracker(leo_tf.Callback):
    """Remembers what it is told."""

    def __init__(self, ends_at=None, fails_at=None):
        self.told, self.ends_at, self.fails_at = [], ends_at, fails_at

    def on_start(self, run):
        self.told.append(("start", run.path, run.state.step))

    def on_log(self, step, metrics):
        self.told.append(("log", step, metrics["accuracy_and_loss/loss"]))

    def on_validation(self, step, metrics):
        if step == self.fails_at:
            raise KeyError("wandb")
        self.told.append(("validation", step, metrics["val_accuracy"]))
        return step == self.ends_at

    def on_end(self, run):
        self.told.append(("end", run.results is not None, run.stopped_by))


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_jobs):
    """A run trained from arrays, and the callback that was told of it."""
    tracker, workdir = Tracker(), tmp_path_factory.mktemp("api") / "run"
    data = leo_tf.load_data(arrays())
    trained = leo_tf.train(config(), workdir, data=data, callbacks=[tracker])
    return trained, tracker


def test_the_import_takes_no_tensorflow_and_next_to_no_time():
    code = "import sys, time; t = time.perf_counter(); import leo_tf;"
    code += "print(time.perf_counter() - t, 'tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, has_tensorflow = done.stdout.split()
    # Loading TensorFlow takes seconds; this, milliseconds.
    assert float(seconds) < 1.0 and has_tensorflow == "False"


def test_every_public_name_is_there_and_no_other():
    for name in leo_tf.__all__:
        assert getattr(leo_tf, name) is not None
        assert name in dir(leo_tf)
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = leo_tf.unheard_of


def test_misspelt_names_get_a_suggestion():
    with pytest.raises(AttributeError) as caught:
        _ = leo_tf.trian
    assert caught.value.name == "trian" and caught.value.obj is leo_tf
    if sys.version_info >= (3, 12):  # the interpreter itself does it before, too
        shown = "".join(traceback.format_exception(caught.value))
        assert "Did you mean: 'train'?" in shown
    with pytest.raises(KeyError, match="glyph: expected one of glyphs, mini_1shot"):
        _ = leo_tf.PRESETS["glyph"]


def test_python_m_leo_tf_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leo_tf", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("leo_tf", run_name="__main__")
    assert capsys.readouterr().out.startswith("leo-tf ")


def test_arrays_are_trained_on_without_a_file_or_a_flag_or_a_printed_word(
    tmp_path, capsys
):
    found = leo_tf.train(config(), tmp_path / "run", data=leo_tf.load_data(arrays()))
    assert found.state.step == 6 and 0 <= found.results.accuracy.mean <= 1
    assert capsys.readouterr() == ("", "")


def test_a_run_gives_results_history_and_the_trained_method(run):
    trained, _ = run
    assert [row["step"] for row in trained.history] == [3, 6]
    saved = results_of(trained.path)["accuracy"]["leo"]
    assert trained.results.accuracy.mean == saved["mean"]
    assert trained.results.accuracy.half_width == saved["half_width_95"]
    best = values_of(trained.path, max(r["step"] for r in trained.history))
    for variable in trained.learner.trainable_variables:
        assert variable.shape == best[variable.path].shape
    assert str(trained.results.accuracy) in repr(trained)


def test_results_are_short_where_python_shows_them(run):
    results = run[0].results
    shown = repr(results)
    assert shown.startswith("Results(") and f"{results.accuracy} %" in shown
    assert len(shown) < 200


def test_the_learner_of_a_run_has_the_variables_of_its_best_checkpoint(run):
    trained, _ = run
    best = values_of(trained.path, trained.state.best_step)
    for variable in trained.learner.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), best[variable.path])


def test_history_csv_holds_the_history(run):
    trained, _ = run
    with open(trained.path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3, 6]
    for row, expected in zip(rows, trained.history, strict=True):
        assert float(row["val_accuracy"]) == expected["val_accuracy"]
        assert float(row["train_loss"]) == expected["train_loss"]


def test_a_callback_is_told_of_everything_in_order(run):
    trained, tracker = run
    kinds = [(what, step) for what, step, _ in tracker.told[1:-1]]
    assert tracker.told[0] == ("start", trained.path, 0)
    assert kinds == [
        *(("log", 2), ("validation", 3)),
        *(("log", 4), ("log", 6), ("validation", 6)),
    ]
    found = [value for what, _, value in tracker.told if what == "validation"]
    assert found == [row["val_accuracy"] for row in trained.history]
    assert tracker.told[-1] == ("end", True, None)


def test_a_callback_ends_training_and_the_best_is_tested(tmp_path):
    tracker = Tracker(ends_at=3)
    data = leo_tf.load_data(arrays())
    found = leo_tf.train(config(), tmp_path / "run", data=data, callbacks=[tracker])
    assert found.state.step == 3 and found.results is not None
    assert tracker.told[-1] == ("end", True, None)
    again = leo_tf.train(config(), tmp_path / "run", data=data)
    assert again.state.step == 6, "without the callback it goes on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_function_after_saving(tmp_path, number):
    class Stop(Tracker):
        def on_validation(self, step, metrics):
            os.kill(os.getpid(), number)

    data, tracker = leo_tf.load_data(arrays()), Stop()
    with pytest.raises(KeyboardInterrupt) as caught:
        leo_tf.train(config(), tmp_path / "run", data=data, callbacks=[tracker])
    assert isinstance(caught.value, Stopped) and caught.value.signal == number
    assert tracker.told[-1] == ("end", False, number)
    again = leo_tf.train(config(), tmp_path / "run", data=data)
    assert again.results is not None and again.stopped_by is None


def test_a_callback_that_fails_is_named_and_the_checkpoint_stays(tmp_path):
    data = leo_tf.load_data(arrays())
    with pytest.raises(CallbackError, match=r"Tracker\.on_validation.*wandb") as caught:
        leo_tf.train(
            config(), tmp_path / "run", data=data, callbacks=[Tracker(fails_at=3)]
        )
    assert isinstance(caught.value.__cause__, KeyError)
    whole = leo_tf.train(config(), tmp_path / "whole", data=data)
    resumed = leo_tf.train(config(), tmp_path / "run", data=data)
    for mine, its in zip(resumed.history, whole.history, strict=True):
        assert mine == its


def test_a_callback_may_change_the_current_directory(tmp_path, monkeypatch):
    class Mover(leo_tf.Callback):
        def on_start(self, run):
            os.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    data, few = leo_tf.load_data(arrays()), config(num_steps=2)
    run = leo_tf.train(few, "run", data=data, callbacks=[Mover()])
    assert run.path == tmp_path / "run" and "results.json" in listing(run.path)
    assert leo_tf.evaluate(run.path).accuracy == run.results.accuracy
    assert list((tmp_path / "elsewhere").iterdir()) == []
    os.chdir(tmp_path)
    assert repr(run).startswith("Run('run', step 2")


def test_a_run_from_arrays_is_evaluated_without_them(run):
    trained, _ = run
    before = listing(trained.path)
    again = leo_tf.evaluate(trained.path)
    assert again.accuracy == trained.results.accuracy
    wider = leo_tf.evaluate(trained.path, test_way=5)
    assert wider.title.startswith("arrays, test: 5-way 1-shot")
    assert wider.accuracy.mean < trained.results.accuracy.mean
    assert listing(trained.path) == before


def test_a_run_from_arrays_may_be_moved(run, tmp_path):
    trained, _ = run
    moved = shutil.copytree(trained.path, tmp_path / "moved")
    config = (moved / "config.json").read_text()
    lost = config.replace(str(trained.path), str(tmp_path / "elsewhere"))
    assert lost != config
    (moved / "config.json").write_text(lost)
    assert leo_tf.evaluate(moved).accuracy == trained.results.accuracy


def test_a_folder_named_data_in_a_run_directory_is_not_taken_for_the_runs_data(
    trained_copy, write_split
):
    before = leo_tf.evaluate(trained_copy).accuracy
    write_split(trained_copy / "data" / "test.npz", "test", 9, seed=7)
    assert leo_tf.evaluate(trained_copy).accuracy == before


def test_other_arrays_are_refused_for_a_run_and_taken_for_a_test(run):
    trained, _ = run
    other = leo_tf.load_data(arrays(seed=1))
    with pytest.raises(InputError, match="data this run began with"):
        leo_tf.train(config(num_steps=9), trained.path, data=other)
    tested = leo_tf.evaluate(trained.path, data=other)
    assert tested.accuracy != trained.results.accuracy
    assert leo_tf.evaluate(trained.path).accuracy == trained.results.accuracy


def test_what_training_has_settled_cannot_be_changed_by_evaluate(run):
    trained, _ = run
    with pytest.raises(FlagError, match="num_latents"):
        leo_tf.evaluate(trained.path, num_latents=8)
    with pytest.raises(FlagError, match="unheard_of"):
        leo_tf.evaluate(trained.path, unheard_of=8)


def test_a_path_may_begin_at_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = config().replace(data_path="~/features.npz", dataset_name="mine")
    path = str(tmp_path / "features.npz")
    with pytest.raises(InputError, match=f"^{path}"):
        leo_tf.train(given, tmp_path / "run")


def test_a_run_is_exported_and_the_client_answers(run, tmp_path):
    trained, _ = run
    path = leo_tf.export_model(trained.path, tmp_path / "exported")
    assert path == tmp_path / "exported" / "1"
    x, y = arrays()["test"]
    client = leo_tf.Classifier(str(tmp_path / "exported")).fit(x[:24:2], y[:24:2])
    right = client.predict(x[1:24:2]) == y[1:24:2]
    assert np.mean(right) > 0.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_fork_after_tensorflow_nothing_hangs(run, tmp_path):
    trained, _ = run
    data = leo_tf.load_data(arrays())
    table, shape = data["train"], {"way": 3, "shot": 1, "num_query": 2, "batch_size": 2}
    shape |= {"seed": 0, "split": "train"}
    for call in (
        lambda: leo_tf.train(config(), tmp_path / "t", data=data),
        lambda: leo_tf.evaluate(trained.path),
        lambda: leo_tf.compare(
            config(), ["leo", "centroid"], tmp_path / "c", data=data
        ),
        lambda: leo_tf.search(config(), ["leo"], tmp_path / "s", trials=1, data=data),
        lambda: leo_tf.reproduce(config(), tmp_path / "r", seeds=1, data=data),
        lambda: leo_tf.export_model(trained.path, tmp_path / "exported"),
        lambda: leo_tf.LEO(),
        lambda: leo_tf.episodes(table, **shape),
        lambda: leo_tf.make_meta_step(
            trained.learner, None, gradient_threshold=0.1, gradient_norm_threshold=0.1
        ),
    ):
        assert in_fork(call).startswith("ForkError: TensorFlow: expected a process")
    assert list(tmp_path.iterdir()) == []


def test_methods_are_compared_and_the_comparison_says_where_it_is(tmp_path):
    data, few = leo_tf.load_data(arrays()), config(num_steps=2)
    found = leo_tf.compare(few, ["leo", "centroid"], tmp_path / "c", data=data)
    assert [row.name for row in found.rows] == ["centroid", "leo"]
    assert found.directory == tmp_path / "c"
    assert found.rows[0].difference is not None and found.rows[1].difference is None
    lines = repr(found).splitlines()
    assert lines[0] == f"Comparison in {tmp_path / 'c'}, 8 test episodes:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  centroid", "  leo"]
    assert sum("best on validation" in line for line in lines) == 1
    assert max(len(repr(row)) for row in found.rows) < 1000


@pytest.mark.long
def test_what_a_search_found_is_what_compare_takes(tmp_path):
    data, few = leo_tf.load_data(arrays()), config(num_steps=2)
    found = leo_tf.search(few, ["leo"], tmp_path / "s", trials=2, data=data)
    assert len(found.trials["leo"]) == 2 and found.trials["leo"][0].settings == {}
    comparison = leo_tf.compare(
        few, ["leo"], tmp_path / "c", method_settings=found.best, data=data
    )
    assert comparison.rows[0].settings == found.best["leo"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: leo_tf.train(leo_tf.PRESETS["glyphs"]), "`config`: expected a Config"),
        (lambda: leo_tf.train(config(), data=arrays()), "`data`: .*load_data"),
        (lambda: leo_tf.compare(config(), "leo,ridge"), "`methods`: .*in a list"),
        (lambda: leo_tf.compare(config(), []), "`methods`: .*in a list"),
        (lambda: leo_tf.compare(config(), ["leo", "svm"]), "received 'svm'"),
        (lambda: leo_tf.search(config(), ["leo"], trials=0), "--trials: .*1 or more"),
        (lambda: leo_tf.reproduce(config(), seeds=0), "--seeds: .*1 or more"),
        (lambda: leo_tf.export_model("no/run", "out", max_classes=1), "--max_classes"),
        (lambda: leo_tf.export_model("no/run", "out", version=0), "--export_version"),
        (
            lambda: leo_tf.export_model("no/run", "out", format="onnx"),
            "--export_format",
        ),
        (lambda: leo_tf.export_model("no/run", "out"), "no/run"),
        (lambda: leo_tf.evaluate("no/run"), "no/run"),
        (lambda: config(num_step=3), "--num_step: .*Did you mean num_steps"),
        (lambda: leo_tf.evaluate(None), "`workdir`: expected a path, .*NoneType"),
        (
            lambda: leo_tf.export_model(types.SimpleNamespace(path="r"), "out"),
            "`workdir`: expected a path, .*run.path",
        ),
        (
            lambda: leo_tf.train(config(), 3, data=leo_tf.load_data(arrays())),
            "`workdir`: expected a path, received int",
        ),
        (
            lambda: leo_tf.train(
                config(val_classes=2), data=leo_tf.load_data(arrays())
            ),
            "--val_classes: expected 0, as given to load_data",
        ),
        (lambda: leo_tf.compare(None, ["leo"]), "`config`: expected a Config"),
        (lambda: leo_tf.search({}, ["leo"]), "`config`: expected a Config"),
        (lambda: leo_tf.train(config(), callbacks=Tracker()), "`callbacks`: .*a list"),
        (lambda: leo_tf.train(config(), callbacks=[Tracker]), "the class Tracker"),
        (lambda: leo_tf.train(config(), callbacks=[print]), "`callbacks`: .*a builtin"),
    ],
)
def test_a_mistake_in_a_call_is_one_line_that_names_the_argument(
    call, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeoError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.long
def test_several_seeds_are_reproduced(tmp_path):
    data, few = leo_tf.load_data(arrays()), config(num_steps=2)
    found = leo_tf.reproduce(few, tmp_path / "r", seeds=2, data=data)
    assert [run.seed for run in found.runs] == [0, 1]
    first, second = (run.accuracy.mean for run in found.runs)
    assert first != second and found.mean == pytest.approx((first + second) / 2)
