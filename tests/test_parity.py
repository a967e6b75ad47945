"""Tests that the slips docs/parity.md lists are mended, and its proofs exist.

Slips within one module are proven mended in that module's tests; here are those that
a user of the release meets at the command line. Shapes: B tasks, N way, K shot, Q
queries per class, D embedding size.
"""

import ast
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.cli.flags import parse
from leo_tf.configs.schema import ModelConfig
from leo_tf.data_pipeline.episode import Episode
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.model.leo import LEO
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.training.meta_step import is_finite, meta_gradients

ROOT = pathlib.Path(__file__).parent.parent
B, N, K, Q, D = 2, 3, 2, 4, 7


def defined_in(path: pathlib.Path) -> set[str]:
    """Functions and classes of a module, and methods as `Class.method`."""
    kinds = ast.FunctionDef | ast.ClassDef
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds):
            names.add(node.name)
            members = node.body if isinstance(node, ast.ClassDef) else []
            names.update(
                f"{node.name}.{member.name}"
                for member in members
                if isinstance(member, kinds)
            )
    return names


@pytest.mark.parametrize(
    "document, fewest", [("parity.md", 25), ("glossary.md", 40), ("methods.md", 2)]
)
def test_every_test_and_function_named_in_the_docs_exists(document, fewest):
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::([\w.]+)`", text)
    assert len(named) >= fewest
    assert len(named) == text.count(".py::")  # none is written so that it is missed
    missing = [
        f"{path}::{name}" for path, name in named if name not in defined_in(ROOT / path)
    ]
    assert not missing


def tiny_episode() -> Episode:
    inputs = np.random.default_rng(5).normal(size=(B, N, K + Q, D)).astype("float32")
    inputs /= np.linalg.norm(inputs, axis=-1, keepdims=True)
    labels = np.tile(np.arange(N, dtype=np.int32)[:, np.newaxis], [B, 1, K + Q])
    parts = inputs[:, :, :K], labels[..., :K], inputs[:, :, K:], labels[..., K:]
    return Episode(*map(tf.constant, parts))


@pytest.mark.parametrize("latent_steps", [0, 2])
@pytest.mark.parametrize("finetuning_steps", [0, 2])
def test_either_inner_loop_or_both_can_have_no_steps(latent_steps, finetuning_steps):
    leo, episode = (
        LEO(
            ModelConfig(
                num_latents=5,
                inner_unroll_length=latent_steps,
                finetuning_unroll_length=finetuning_steps,
            )
        ),
        tiny_episode(),
    )
    leo.build([None, N, K, D])
    noise = leo.draw_noise(episode, seed=0, step=0)
    loss, gradients, metrics = meta_gradients(leo, episode, noise)
    assert bool(is_finite(loss, gradients))
    moved = {
        variable.path.split("/", 1)[-1]: bool(np.any(gradient != 0))
        for variable, gradient in zip(leo.trainable_variables, gradients)
    }
    # A loop without steps does not use its learning rates; all else is learned.
    assert moved.pop("inner_lr", None) == (True if latent_steps else None)
    assert moved.pop("finetuning_lr", None) == (True if finetuning_steps else None)
    assert len(moved) == 5
    assert all(moved.values())
    assert bool(metrics["inner_loop/latent_step"] > 0) == (latent_steps > 0)


def evaluate(workdir: pathlib.Path, *flags: str):
    """Evaluates as the release is told to; gives the results."""
    flags = ["--evaluation_mode", f"--checkpoint_path={workdir}", "--quiet", *flags]
    options = parse(["run_leo.py", *flags])
    return evaluate_run(options.workdir, **options.explicit)


@pytest.mark.usefixtures("quick_job")
def test_evaluation_loads_the_best_checkpoint_and_not_the_latest(trained_copy):
    checkpoints, losses = Checkpoints(trained_copy), {}
    for best in (5, 12):  # 12 is the latest
        checkpoints.mark_best(best)
        losses[best] = evaluate(trained_copy).losses["leo"]
    assert losses[5] != losses[12]


def test_evaluation_writes_nothing_into_the_run_directory(trained):
    def content():
        return {
            path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
            for path in [trained, *trained.rglob("*")]
        }

    before = content()
    evaluate(trained)
    assert content() == before


@pytest.mark.usefixtures("quick_job")
def test_evaluation_accepts_the_releases_zero_interval_and_does_not_need_it(trained):
    assert evaluate(trained, "--checkpoint_steps=0") == evaluate(trained)


@pytest.mark.usefixtures("quick_job")
def test_the_same_command_in_another_directory_trains_the_same_to_the_bit(
    train, tmp_path
):
    def values(workdir):
        path = Checkpoints(workdir).load(4).path / "variables"
        reader = tf.train.load_checkpoint(str(path))
        names = [name for name in reader.get_variable_to_shape_map() if "leo" in name]
        assert len(names) >= 7
        return {name: reader.get_tensor(name).tobytes() for name in names}

    workdirs = [tmp_path / name for name in ("here", "there")]
    flags = "--num_steps=4", "--quiet"
    assert [train(workdir, *flags) for workdir in workdirs] == [0, 0]
    assert values(workdirs[0]) == values(workdirs[1])
