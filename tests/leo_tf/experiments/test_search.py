"""The search for settings: its trials, its choice of the best, and resuming."""

import itertools
import json
import os
import pathlib
import shutil
import signal

import pytest
from saved_runs import listing, results_of

from leo_tf.cli import main as command_line
from leo_tf.cli.flags import parse
from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.errors import DivergedError, FlagError
from leo_tf.experiments import run_group
from leo_tf.experiments import search as search_job
from leo_tf.methods import settings as method_settings
from leo_tf.methods.defaults import SEARCHED
from leo_tf.methods.drawing import draw
from leo_tf.runs.directory import RunDirectory

pytestmark = pytest.mark.long

pytest.importorskip("optuna")
# The generator has no inner loop.
_QUICK = ("--adaptation_steps=1", "--num_steps=4", "--validate_every=2")


@pytest.fixture(scope="module")
def search(small_flags, quick_jobs):
    """Returns a function that searches in a directory and returns the exit status."""

    def search(workdir, *flags) -> int:
        mode = "--mode=search", "--methods=generator,maml,ridge", f"--workdir={workdir}"
        given = [*small_flags, *_QUICK, *mode, "--jobs=0", "--rungs=1", *flags]
        return command_line.main(["run_leo.py", *given])

    return search


@pytest.fixture(scope="module")
def searched(search, tmp_path_factory):
    """A finished search of three trials. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("search") / "job"
    assert search(workdir, "--trials=3", "--quiet") == 0
    return workdir


@pytest.fixture(autouse=True)
def no_more_pictures(searched, monkeypatch):
    """Draws no plots, because those of `searched` are enough."""
    monkeypatch.setattr(search_job.report, "picture", lambda found: None)
    monkeypatch.setattr(search_job, "save", lambda path, picture: None)


def drawn(name, number) -> dict:
    """Returns the settings of a trial; the given ones for the first."""
    return draw(name, "random", 0, range(number, number + 1))[0] if number else {}


def best_validation(directory) -> float:
    newest = max((directory / "checkpoints").iterdir())
    progress = json.loads((newest / "manifest.json").read_text())["progress"]
    return max(record["val_accuracy"] for record in progress["history"])


def test_every_trial_trained_with_the_settings_drawn_for_it(searched):
    found = results_of(searched)["methods"]
    assert list(found) == ["maml", "generator"], "ridge is not trained"
    for name, result in found.items():
        assert len(result["trials"]) == 3
        for number, trial in enumerate(result["trials"]):
            directory = searched / name / f"trial_{number:02}"
            config = json.loads((directory / "config.json").read_text())
            flat = Config.from_dict(config).flat()
            assert flat["method"] == name
            assert trial["settings"] == drawn(name, number)
            assert trial["settings"].items() <= flat.items()
            accuracy = trial["validation_accuracy"]["mean"]
            assert accuracy == best_validation(directory)
            assert trial["steps_trained"] == 4 and not trial["diverged"]


def test_the_best_validation_decides_and_its_settings_fit_a_comparison(
    searched, small_flags, tmp_path
):
    found = results_of(searched)["methods"]
    settings = json.loads((searched / "settings.json").read_text())
    for name, result in found.items():
        means = [t["validation_accuracy"]["mean"] for t in result["trials"]]
        best = means.index(max(means))
        assert result["best_trial"] == best
        chosen = result["trials"][best]["settings"]
        assert chosen.items() <= settings[name].items()
        assert settings[name].keys() == method_settings.ranges(name).keys()
    settings = {"leo": {"kl_weight": 0.25}, "ridge": {"ridge_strength": 2.0}}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    workdir = tmp_path / "comparison"
    names = "leo,generator,ridge,centroid"
    flags = [f"--workdir={workdir}", f"--methods={names}", f"--method_settings={path}"]
    mode = ["--mode=compare", "--quiet", "--kl_weight=0.75", "--jobs=0"]
    given = [*small_flags, *_QUICK, *mode, *flags]
    assert command_line.main(["run_leo.py", *given]) == 0
    configs = {
        name: json.loads((workdir / name / "config.json").read_text())
        for name in names.split(",")
    }
    weights = {name: config["model"]["kl_weight"] for name, config in configs.items()}
    assert weights == {"leo": 0.25, "generator": 0.25, "ridge": 0.75, "centroid": 0.75}
    assert configs["ridge"]["methods"]["ridge_strength"] == 2.0
    rows = results_of(workdir)["methods"]
    own = {name: row["settings_of_its_own"] for name, row in rows.items()}
    both = {"leo": settings["leo"], "generator": settings["leo"]}
    assert own == {**both, "ridge": settings["ridge"], "centroid": {}}
    assert "LEO: `--kl_weight=0.25`" in (workdir / "results.md").read_text()


def test_a_method_is_searched_for_on_a_transform_of_its_own(
    searched, search, tmp_path, capsys
):
    workdir = pathlib.Path(shutil.copytree(searched, tmp_path / "copy"))
    names = "generator@soft,generator@lda,ridge@soft"
    flags = f"--methods={names}", "--trials=2", "--transform_dims=3"
    assert search(workdir, *flags) == 0
    path = workdir / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.keys() == {"generator", "maml", "generator@soft", "generator@lda"}
    names = settings["generator"].keys()
    assert settings["generator@soft"].keys() == names, "its transform is in its name"
    for kind, number in itertools.product(("soft", "lda"), (0, 1)):
        trial = workdir / f"generator@{kind}" / f"trial_{number:02}"
        config = Config.from_dict(json.loads((trial / "config.json").read_text()))
        assert config.methods.method == "generator"
        assert config.features.feature_transform == kind
        mine = drawn("generator", number)
        assert mine.items() <= config.flat().items(), "as on any other transform"
        # Given, then drawn; 8 classes have 7 dims.
        dims = None if kind == "soft" else (3, 7)[number]
        assert config.features.transform_dims == dims
    found = results_of(workdir)["methods"]["generator@lda"]
    dims = settings["generator@lda"]["transform_dims"]
    assert dims == (3, 7)[found["best_trial"]]
    given = method_settings.read(str(path), Config())
    assert method_settings.of(given, "generator@lda")["transform_dims"] == dims
    told = capsys.readouterr()
    assert "Conditional generator only, soft, trial 1, 2 of 2: --outer_lr" in told.err
    assert "Conditional generator only, soft: best of 2 trials" in told.out
    best = max(
        (trial["validation_accuracy"]["mean"], name)
        for name, result in results_of(workdir)["methods"].items()
        for trial in result["trials"]
    )
    line = f"{100 * best[0]:.2f} %. --methods={best[1]} uses its settings."
    assert line in told.out and line in (workdir / "results.md").read_text()


def test_all_trials_are_in_the_files_best_first(searched):
    text = (searched / "results.md").read_text()
    tables = text.split("# ")[1:]
    titles = [table.splitlines()[0] for table in tables]
    assert titles == ["MAML", "Conditional generator only"]
    for name, table in zip(("maml", "generator"), tables):
        rows = [line.split(" | ") for line in table.splitlines() if line[:3] > "| -"]
        numbers = [int(row[0].strip("| ")) for row in rows if row[0][2:].isdigit()]
        trials = results_of(searched)["methods"][name]["trials"]
        means = [trials[number]["validation_accuracy"]["mean"] for number in numbers]
        assert sorted(numbers) == [0, 1, 2] and means == sorted(means, reverse=True)
    picture = (searched / "search.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_a_longer_search_keeps_the_trials_there_are(searched, search, tmp_path, capsys):
    workdir = pathlib.Path(shutil.copytree(searched, tmp_path / "copy"))
    before = {k: v for k, v in listing(workdir).items() if "/checkpoints/" in k}
    old = results_of(workdir)["methods"]
    assert search(workdir, "--trials=4", "--methods=maml") == 0
    said = capsys.readouterr()
    after = {k: v for k, v in listing(workdir).items() if "/checkpoints/" in k}
    assert before.items() < after.items()
    new = results_of(workdir)["methods"]["maml"]["trials"]
    assert new[:3] == old["maml"]["trials"] and len(new) == 4
    assert "MAML, trial 0, 1 of 4: settings as given" in said.err
    assert "MAML, trial 3, 4 of 4: --outer_lr=" in said.err
    assert "MAML: best of 4 trials" in said.out and "(as given)" in said.out


def test_the_settings_given_are_written_out_where_they_were_best(
    search, tmp_path, small_flags
):
    workdir = tmp_path / "job"
    assert search(workdir, "--trials=1", "--methods=maml", "--quiet") == 0
    settings = json.loads((workdir / "settings.json").read_text())
    assert settings == {"maml": {"outer_lr": 0.02, "adaptation_lr_init": 3.0}}


# Rates that make the first steps overflow.
_DIVERGES = (
    "--outer_lr=1e30",
    "--non_finite_limit=2",
    "--methods=generator",
    "--num_steps=5",
    "--validate_every=5",
)


def test_a_search_in_which_all_diverges_recommends_nothing_and_is_done_once(
    search, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "job"
    assert search(workdir, "--trials=1", *_DIVERGES) == 0
    result = results_of(workdir)["methods"]["generator"]
    assert result["best_trial"] is None and result["trials"][0]["diverged"]
    assert json.loads((workdir / "settings.json").read_text()) == {}
    assert "Every trial diverged" in capsys.readouterr().out

    def trained_again(*unused):
        pytest.fail("it is known to diverge")

    with monkeypatch.context() as patched:
        patched.setattr(run_group, "train_one", trained_again)
        assert search(workdir, "--trials=1", *_DIVERGES) == 0
    assert results_of(workdir)["methods"]["generator"] == result
    # Other settings are unknown, and no checkpoint conflicts with them.
    assert search(workdir, "--trials=1", *_DIVERGES, "--outer_lr=1e-3") == 0
    again = results_of(workdir)["methods"]["generator"]
    assert again["best_trial"] == 0 and not again["trials"][0]["diverged"]


def test_a_trial_that_diverges_is_never_the_best(
    searched, search, tmp_path, monkeypatch, capsys
):
    train = run_group.train_one
    best = results_of(searched)["methods"]["maml"]["best_trial"]

    def diverging(config, path, *given, **options):
        train(config, path, *given, **options)
        if str(path).endswith(f"maml/trial_0{best}"):
            raise DivergedError("step 12", "few", "many")

    monkeypatch.setattr(run_group, "train_one", diverging)
    workdir = pathlib.Path(shutil.copytree(searched, tmp_path / "copy"))
    assert search(workdir, "--trials=3", "--methods=maml") == 0
    found = results_of(workdir)["methods"]["maml"]
    assert [t["diverged"] for t in found["trials"]] == [n == best for n in range(3)]
    assert found["best_trial"] != best
    assert "(diverged)" in capsys.readouterr().out


def test_a_signal_ends_the_search_where_it_was(search, tmp_path, monkeypatch):
    advance = ProgressLine.advance

    def interrupted(self, *arguments):
        advance(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProgressLine, "advance", interrupted)
    workdir = tmp_path / "job"
    assert search(workdir, "--trials=2", "--quiet") == 128 + signal.SIGTERM
    assert not (workdir / "results.json").exists()
    assert not (workdir / "generator").exists(), "MAML comes first"


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (["--methods=ridge,centroid"], "--methods"),
        (["--train_on_val"], "--train_on_val"),
        (["--method=maml"], "--method"),
        (["--seeds=3"], "--seeds"),
        (["--trials=0"], "--trials"),
    ],
)
def test_what_cannot_be_searched_is_refused(search, tmp_path, capsys, flags, where):
    assert search(tmp_path / "job", *flags) == 2
    assert f"{where}: " in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


def test_by_default_methods_that_keep_their_way_are_left_out_at_another(
    small_flags, tmp_path, monkeypatch, caplog
):
    asked = []

    def instead(config, names, console):
        asked.extend(names)
        raise FlagError("--methods", "no more", "enough")

    monkeypatch.setattr(search_job, "_settings", instead)
    for flags in ([], ["--test_way=2"]):
        options = parse(["run_leo.py", "--mode=search", *small_flags, *flags])
        with pytest.raises(FlagError):
            search_job.search(options.config, workdir=tmp_path / "job")
    assert asked == [*SEARCHED, "leo", "protonet", "generator"]
    assert "MAML" in caplog.text


def test_searching_for_another_method_keeps_what_was_found(search, searched, tmp_path):
    workdir = pathlib.Path(shutil.copytree(searched, tmp_path / "copy"))
    before = json.loads((workdir / "settings.json").read_text())
    flags = "--trials=1", "--methods=meta_sgd", "--quiet"
    assert search(workdir, *flags) == 0
    after = json.loads((workdir / "settings.json").read_text())
    assert after.keys() == {"maml", "generator", "meta_sgd"}
    assert before.items() <= after.items()


def test_a_second_search_in_the_same_directory_is_told_who_is_there(
    search, tmp_path, capsys
):
    workdir = tmp_path / "job"
    with RunDirectory(workdir).held():
        assert search(workdir, "--trials=1", "--quiet") == 3
    said = capsys.readouterr().err
    assert f"error: {workdir}: expected no other process training here" in said
    assert f"process {os.getpid()} on " in said
    assert not workdir.exists(), "neither has done anything"


def test_settings_that_are_damaged_are_told_of_before_anything_is_trained(
    search, searched, tmp_path, capsys
):
    workdir = pathlib.Path(shutil.copytree(searched, tmp_path / "copy"))
    (workdir / "settings.json").write_text("{")
    before = listing(workdir)
    assert search(workdir, "--trials=4", "--quiet") == 3
    assert f"error: {workdir / 'settings.json'}" in capsys.readouterr().err
    after = listing(workdir)
    assert after.pop(".lock") and before.pop(".lock") and after == before
