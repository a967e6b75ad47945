"""The examples and the notebook run, and the notebook shows what it says."""

import importlib.util
import pathlib
import sys

import nbformat
import pytest
import tensorflow as tf
from nbclient import NotebookClient

import leo_tf

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "first_steps.ipynb"


def load(name: str):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["train_leo.py", "own_method.py"])
def test_an_example_is_short_enough_to_read_at_once(name):
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 65


def test_the_training_loop_learns(capsys):
    example = load("train_leo.py")
    example.TEST_EPISODES = 60
    untrained, trained = example.main(steps=0), example.main(steps=40)
    assert untrained + 0.1 < trained, "a fifth is chance"
    assert "over 60 episodes" in capsys.readouterr().out


def test_the_method_adapts_to_uneven_support_as_to_even_and_compares(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    example = load("own_method.py")
    map_ = example.CosineMap(leo_tf.Config(), 6)
    map_.kernel.assign(tf.random.stateless_normal([6, 6], [1, 2]))
    support = tf.random.stateless_normal([1, 3, 2, 6], [3, 4])
    labels = tf.constant([0, 0, 1, 1, 2, 2])
    flat = tf.reshape(support, [6, 6])
    even = map_.adapt(support, labels).classifier[0]
    uneven = map_.adapt_uneven(flat, labels, 3).classifier
    tf.debugging.assert_near(even, uneven)
    example.main(steps=10)
    assert "Cosine map: " in capsys.readouterr().out
    leo_tf.export_model("runs/own_method/cosine_map", "exported")
    assert (tmp_path / "exported" / "1" / "saved_model.pb").exists()


def cells(notebook, kind="code"):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.slow
def test_the_notebook_runs_whatever_keras_others_want(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in cells(notebook):
        for steps in ("num_steps=1000", "num_steps=500"):
            few = "num_steps=4, num_test_episodes=4, num_val_episodes=4, jit='off'"
            few += ", inner_unroll_length=1, finetuning_unroll_length=1, num_latents=4"
            few += ", meta_batch_size=2, num_query=2"
            cell.source = cell.source.replace(steps, few)
        cell.source = cell.source.replace('"leo", "ridge", "logistic"', '"ridge"')
    cells(notebook)[-1].source += "\nimport os, keras\n"
    cells(notebook)[-1].source += "assert keras.backend.backend() == 'tensorflow'\n"
    cells(notebook)[-1].source += "assert os.environ['KERAS_BACKEND'] == 'torch'"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{f}"]}
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.create_kernel_manager().kernel_cmd = kernel["argv"]
    # Graphs of so few steps take longer than the steps.
    [first, *_] = cells(notebook)
    first.source += "\nleo_tf.LEO\nimport tensorflow\n"
    first.source += "tensorflow.config.run_functions_eagerly(True)"
    client.execute()
    assert (tmp_path / "runs" / "first_steps_exported" / "1").is_dir()


def test_the_notebook_is_kept_with_what_it_shows():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    outputs = [output for cell in cells(notebook) for output in cell.outputs]
    assert all(cell.outputs for cell in cells(notebook)[:-2])
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not [output for output in outputs if output.output_type == "error"]
    # What TensorFlow prints at its start is nobody's business.
    assert not [output for output in outputs if output.output_type == "stream"]
