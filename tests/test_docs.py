"""Tests that the Python of docs/ runs, and that its commands are command lines.

A snippet that cannot run here has the reason above it: `<!-- not run: ... -->`.
"""

import pathlib
import pickle
import re
import shlex

import numpy as np
import pytest

from leo_tf.cli.flags import parse

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Pages whose Python is run by other tests.
ELSEWHERE = {
    "methods.md": "tests/test_readme.py",
    "pictures.md": "tests/leo_tf/embedding/test_recipes.py",
    "python.md": "tests/test_readme.py",
    "serving.md": "tests/leo_tf/export/test_export_docs.py",
}
BLOCK = re.compile(r"(<!-- not run: .+ -->\n+)?^```python\n(.*?)^```", re.M | re.S)


def snippets(page: str) -> list[str]:
    """Returns the Python of a page that is not marked as not run."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [code for reason, code in BLOCK.findall(text) if not reason]


def commands(text: str) -> list[str]:
    """Returns the commands in indented blocks, each joined into one line."""
    lines = "\n".join(re.findall(r"^    (\S.*)$", text.replace("\\\n", " "), re.M))
    return lines.splitlines()


def run_all(codes: list[str], **names) -> dict:
    for code in codes:
        exec(code, names)
    return names


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {page.stem for page in PAGES} - {"index"}
    assert pages <= set(re.findall(r"^(\w+)$", index, re.MULTILINE))


def test_every_page_with_python_is_run_by_a_test():
    here = {"data_formats.md", "glyphs.md", "serving_client.md"}
    for page in PAGES:
        assert not snippets(page.name) or page.name in {*ELSEWHERE, *here}, page.name
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / test).read_text("utf-8")


def test_the_python_of_data_formats_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {label: [np.ones(3) * (label + 1)] * 2 for label in range(4)}
    pathlib.Path("base_features.plk").write_bytes(pickle.dumps(rows))
    keys = [f"{i}-cat-cat_{i}.jpg" for i in range(3)]
    released = {"embeddings": np.eye(3), "keys": keys}
    pathlib.Path("train_embeddings.pkl").write_bytes(pickle.dumps(released))
    codes = snippets("data_formats.md")
    assert "find_pictures" in codes[-1]  # run by tests/data_pipeline/images
    run_all(codes[:-1], my_features=lambda split: (np.eye(2), [f"{split}0", "1"]))
    with np.load("train.npz") as file:
        assert file["labels"].tolist() == 3 * ["cat"]
    assert pathlib.Path("my_data/val.npz").is_file()


def test_the_python_of_glyphs_draws_its_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    assert set(run_all(snippets("glyphs.md"))["tables"]) == {"train", "val", "test"}
    assert (tmp_path / "docs" / "images" / "glyphs.png").stat().st_size > 10_000


def test_the_python_of_the_client_runs(trained_export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").symlink_to(trained_export)
    features = np.random.default_rng(0).normal(size=(4, 8))
    codes = snippets("serving_client.md")
    names = run_all(codes, features=features, new_features=features, token="x")
    assert set(names["classifier"].classes_) == {"cat", "dog"}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.name)
def test_commands_of_a_page_are_command_lines(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "svc.json").write_text("{}")
    for command in commands(page.read_text("utf-8")):
        if re.match(r"(python run_leo\.py|leo-tf) ", command) and "..." not in command:
            _, _, flags = command.partition(" ")
            words = shlex.split(flags.removeprefix("run_leo.py"), comments=True)
            try:
                parse(["run_leo.py", *words])
            except SystemExit as end:  # --help and --version
                assert end.code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_other_commands_say_why_they_are_not_run(page):
    text, others = page.read_text("utf-8"), "python -m|python benchmarks|TF_CONFIG=|#!"
    programs = "pip|docker|curl|export|saved_model_cli|make|kubectl|ray|sh"
    for found in re.finditer(r"(?:^|\n\n)    ([#a-zA-Z].*)", text):
        command = found[1]
        if re.match(f"({programs}) |{others}", command):
            before = text[: found.start(1)].rstrip().splitlines()[-1]
            assert before.startswith("<!-- not run: "), f"{page.name}: {command}"
