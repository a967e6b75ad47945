"""Two devices make the steps of one. Jobs that cannot be distributed are refused.

`test_distributed_runs.py` has whole runs and several processes.
"""

import numpy as np
import pytest
import tensorflow as tf
from replica_jobs import assert_steps_equal, finished, start_job

from leo_tf.configs.schema import ModelConfig
from leo_tf.model import noise as noise_lib


@pytest.mark.slow
def test_two_replicas_update_as_one_device_does(tmp_path):
    job = start_job("steps", tmp_path, [])
    assert_steps_equal(finished(tmp_path, [job]), "quick", 1e-12)


def test_a_method_that_is_not_trained_has_no_replicas(train, tmp_path, capsys):
    flags = ["--method=centroid", "--strategy=mirrored", "--quiet"]
    assert train(tmp_path / "run", *flags) == 2
    assert capsys.readouterr().err.startswith("error: --strategy: expected none with")


def test_workers_need_to_know_of_each_other(train, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert train(tmp_path / "run", "--strategy=multi_worker", "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: TF_CONFIG: expected") and not captured.out
    assert captured.err.count("\n") == 1 and not list(tmp_path.iterdir())


def draw(tasks: int, first_task=0):
    shapes = [tasks, 3, 2, 7], [tasks, 3, 4, 7]
    sizes = {"inner_unroll_length": 2, "finetuning_unroll_length": 1}
    config = ModelConfig(num_latents=5, dropout_rate=0.3, **sizes)
    options = {"dtype": tf.float32, "first_task": first_task}
    return noise_lib.draw(config, *shapes, seed=5, step=9, **options)


def test_a_part_of_the_meta_batch_draws_its_own_rows_of_the_whole():
    whole = tf.nest.flatten(draw(6))
    for first, last in ((0, 2), (2, 6)):
        part = tf.nest.flatten(draw(last - first, tf.constant(first)))
        assert len(part) == len(whole)
        for mine, all_tasks in zip(part, whole):
            np.testing.assert_array_equal(mine, all_tasks[first:last], strict=True)


def test_the_place_in_the_meta_batch_compiles_no_draw_anew():
    draw(4)
    functions = noise_lib._normals, noise_lib._masks
    counts = [each.experimental_get_tracing_count() for each in functions]
    for first_task in (0, 1, tf.constant(8), tf.constant(9, tf.int64)):
        draw(4, first_task)
    assert [each.experimental_get_tracing_count() for each in functions] == counts
