"""Tests that the Python of docs/serving.md runs, and that its flags exist."""

import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from exported_models import D, make_request

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "serving.md"
TEXT = DOCS.read_text("utf-8")


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """Returns the blocks of Python, in order."""
    return re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(trained_export, tmp_path_factory) -> pathlib.Path:
    """Returns a directory with the exports that the text uses."""
    directory = tmp_path_factory.mktemp("user")
    shutil.copytree(trained_export, directory / "models" / "leo")
    return directory


def block_with(blocks, words: str) -> str:
    (found,) = [block for block in blocks if words in block]
    return found


def test_python_adapts_and_predicts_as_told(blocks, place, monkeypatch):
    monkeypatch.chdir(place)
    request = make_request()
    names = {"features": request.pop("support"), **request}
    exec(block_with(blocks, "saved_model.load"), names)
    expected = names["model"].signatures["classify"](
        support=tf.constant(names["features"]),
        labels=tf.constant(names["labels"]),
        queries=tf.constant(names["queries"]),
    )
    answer = names["answer"]["probabilities"]
    assert np.array_equal(answer, expected["probabilities"])


def test_python_adds_and_removes_classes_as_told(blocks, place):
    random = np.random.default_rng(0)
    model = tf.saved_model.load(str(place / "models" / "leo" / "1"))
    kinds = {"cats": 2, "dogs": 1, "foxes": 3, "more_dogs": 2}
    rows = {name: random.normal(size=[count, D]) for name, count in kinds.items()}
    names = {"tf": tf, "model": model, **rows}
    exec(block_with(blocks, "more_dogs"), names)
    assert names["names"] == ["dog", "fox"]
    left = np.concatenate([rows["dogs"], rows["more_dogs"], rows["foxes"]])
    fresh = model.signatures["adapt"](
        support=tf.constant(left, tf.float32),
        labels=tf.constant([0, 0, 0, 1, 1, 1], tf.int64),
    )
    assert np.array_equal(names["classifier"], fresh["classifier"])


def test_every_flag_it_names_is_one():
    from leo_tf.cli.options import OPTIONS

    commands = re.findall(r"run_leo\.py[^\n]*", TEXT)
    flags = {name for line in commands for name in re.findall(r"--(\w+)", line)}
    assert {"mode", "workdir", "export_dir", "export_format"} <= flags <= set(OPTIONS)
