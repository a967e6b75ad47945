import importlib.util

import pytest

from benchmarks.in_turn import Timing
from benchmarks.peers import contestants
from benchmarks.peers_speed import cells
from leo_tf.configs.presets import PRESETS


def test_a_row_holds_speed_cpu_time_and_both_as_multiples_of_the_references():
    mine, reference = [Timing(0.02, 0.03)] * 3, [Timing(0.01, 0.01)] * 3
    row = [cell.partition(" ")[0] for cell in cells(mine, reference)]
    assert row == ["50.0", "30.0", "2.00", "3.00"]


@pytest.mark.parametrize(
    ("absent", "left_out"),
    [
        ((), set()),
        (("jax", "optax", "torch"), {"JAX", "PyTorch", "PyTorch compiled"}),
        (("optax",), {"JAX"}),
        (("g++",), {"PyTorch compiled"}),
    ],
)
def test_who_lacks_something_is_left_out_and_why_is_told(absent, left_out, monkeypatch):
    def found(name):
        return None if name in absent else name

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(contestants.shutil, "which", found)
    lacks = {name: contestants.lack_of(name) for name in contestants.CONTESTANTS}
    assert {name for name, lack in lacks.items() if lack is not None} == left_out
    for name in left_out:
        told = "compiler" if absent == ("g++",) else absent[-1]
        assert told in lacks[name] or (name == "JAX" and "optax" in lacks[name])


@pytest.mark.parametrize("shot", [1, 5])
def test_the_constant_batch_is_a_batch_of_the_published_sizes(shot):
    config = PRESETS[f"mini_{shot}shot"].config()
    support, support_labels, query, query_labels = contestants.synthetic_batch(
        config, "int32"
    )
    assert support.shape == (12, 5, shot, 640) and query.shape == (12, 5, 15, 640)
    assert support_labels.shape == (12, 5, shot) and query_labels.shape == (12, 5, 15)
    for way in range(5):
        assert (support_labels[:, way] == way).all()
        assert (query_labels[:, way] == way).all()
    assert (abs((query**2).sum(axis=-1) - 1) < 1e-5).all()
