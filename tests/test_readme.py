"""The README tells the truth: its commands run, the files it names exist."""

import pathlib
import re
import shlex
import sys

import pytest
from PIL import Image, ImageDraw

from leo_tf.cli.main import main

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Makes a command of the README a matter of seconds; it changes nothing else of it.
QUICK = [
    "--num_steps=2",
    "--validate_every=2",
    "--num_val_episodes=2",
    "--num_test_episodes=2",
    "--meta_batch_size=2",
    "--num_query=2",
    "--num_latents=4",
    "--jit=off",
    "--quiet",
    "--inner_unroll_length=1",
    "--finetuning_unroll_length=1",
]


def commands() -> list[list[str]]:
    """Arguments of every `python run_leo.py` command in a block of the README."""
    blocks = "\n".join(re.findall(r"^    (.*)$", README, re.MULTILINE))
    joined = blocks.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if "run_leo.py" in line]
    return [shlex.split(line)[2:] for line in lines if line.startswith("python ")]


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A directory with the features the README speaks of, as its snippet saves them."""
    monkeypatch.chdir(tmp_path)
    [snippet] = [code for code in SNIPPETS if "np.savez" in code]
    for directory in ("features", "embeddings/miniImageNet/center"):
        exec(snippet.replace('"features', f'"{directory}'), {})
    return tmp_path


@pytest.mark.usefixtures("quick_job")
def test_the_commands_for_own_features_and_for_the_papers_numbers_run(user, capsys):
    # Those on pictures are for tests/leo_tf/experiments/test_from_images.py.
    found = [c for c in commands() if not any("pictures" in flag for flag in c)]
    assert len(found) == 4
    for arguments in found:
        is_training = not any(argument.startswith("--mode") for argument in arguments)
        quick = QUICK if is_training else []
        assert main(["run_leo.py", *arguments, *quick]) == 0, arguments
        is_test = "--mode=export" not in arguments
        assert is_test == ("nearest centroid" in capsys.readouterr().out)
    assert (user / "exported" / "1" / "saved_model.pb").is_file()
    files = {path.name for path in (user / "runs" / "mine").iterdir()}
    promised = re.findall(r"^    (\S+?)[,/]? .*", README.split("## A run")[1], re.M)
    assert {"config.json", "results.json", "learning_curve.png"} <= set(promised)
    assert {name.strip("/,") for name in promised[:5]} <= files


def test_make_has_the_targets_the_readme_names():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^    make (\w+) ", README, re.MULTILINE))
    assert targets == {"demo", "try", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_file_the_documents_link_to_is_there():
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        prose = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
        missing = [link for link in links if not (document.parent / link).exists()]
        assert not missing, f"{document.name}: {missing}"


class Recorder:
    """Stands in for a tracker: takes every call, and remembers it."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


@pytest.mark.usefixtures("quick_job")
def test_the_first_python_trains_exports_and_classifies_also_drawings(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("a1", "b1", "a2"):
        drawing = Image.new("L", (40, 40), "white")
        stroke = [(8, 20), (32, 20)] if "a" in name else [(20, 8), (20, 32)]
        ImageDraw.Draw(drawing).line(stroke, "black", 3)
        drawing.save(f"{name}.png")
    few = "num_steps=4, num_val_episodes=9, num_test_episodes=9, jit='off'"
    few += ", inner_unroll_length=1, finetuning_unroll_length=1"
    names = {}
    exec(SNIPPETS[0].replace("num_steps=1000", few), names)
    answers = capsys.readouterr().out.splitlines()[-1]
    answered = re.findall(r"'(\w+)'", answers)
    assert len(answered) == 3 and set(answered) <= {"ban", "tan", "par"}
    classifier = names["classifier"].fit(["a1.png", "b1.png"], ["a", "b"])
    assert classifier.predict(["a2.png"]).tolist() == ["a"]


@pytest.mark.usefixtures("quick_job")
def test_the_python_of_the_documents_runs_trackers_included(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    first, *callbacks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    few = "num_steps=4, num_val_episodes=9, num_test_episodes=9, jit='off', log_every=2"
    few += ", inner_unroll_length=1, finetuning_unroll_length=1"
    names: dict = {}
    recorders = {"wandb": Recorder(), "mlflow": Recorder()}
    for name, recorder in recorders.items():
        monkeypatch.setitem(sys.modules, name, recorder)
    exec(first.replace("num_steps=1000", few), names)
    assert (tmp_path / "exported" / "1").is_dir()
    leo_tf, config, data = (names[name] for name in ("leo_tf", "config", "data"))
    for code in callbacks:
        exec(code, names)
    trackers = [names["WandbCallback"](), names["MlflowCallback"]()]
    leo_tf.train(config, "runs/second", data=data, callbacks=trackers)
    for tracker, wanted in (("wandb", "log"), ("mlflow", "log_metrics")):
        steps = [o["step"] for n, _, o in recorders[tracker].calls if n == wanted]
        assert steps == [2, 4, 4], "logs and a validation"
        assert recorders[tracker].calls[-1][0] in ("finish", "end_run")


def test_the_method_of_the_documents_is_one(monkeypatch):
    from leo_tf.methods import registry

    text = (ROOT / "docs" / "methods.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))
    monkeypatch.setattr(registry, "METHODS", registry._methods)
    exec(code, {})
    assert registry.method_named("means").title == "Means"
