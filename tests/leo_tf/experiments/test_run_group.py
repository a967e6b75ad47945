"""Test scores of workers are found, even where new files are seen late."""

import numpy as np
import pytest

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.evaluation.evaluate import EpisodeScores, save
from leo_tf.experiments import run_group
from leo_tf.experiments.run_group import RunGroup
from leo_tf.training.replicas import start

_SCORES = EpisodeScores(np.array([0.25, 0.5]), 1.5)


@pytest.fixture
def group(tmp_path, monkeypatch):
    # NFS remembers for a while that a file was missing.
    monkeypatch.setattr(run_group.pathlib.Path, "exists", lambda path: False)
    config, console = Config(), Console(quiet=True)
    replicas, engine = start(config, console.say), run_group.Engine(2)
    found = RunGroup(tmp_path, config, {}, replicas, engine, console=console)
    for name in ("leo", "maml"):
        found._scores[name] = tmp_path / f"{name}.npz"
    return found


def test_scores_that_another_machine_has_written_are_found_whenever_they_come(
    group, monkeypatch, capsys
):
    def sleep(seconds):
        group._scores["maml"].write_bytes(save(_SCORES))

    group._scores["leo"].write_bytes(save(_SCORES))
    monkeypatch.setattr(run_group.time, "sleep", sleep)
    found = group.tested(["leo", "maml", "trained in this process"])
    assert found.keys() == {"leo", "maml"} and capsys.readouterr().err == ""
    assert found["maml"].accuracy.tolist() == [0.25, 0.5]


def test_scores_that_do_not_come_are_told_of(group, monkeypatch, capsys):
    monkeypatch.setattr(run_group, "_LATE_SECONDS", 0.0)
    assert group.tested(["maml"]) == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("maml: its worker's test scores are missing, so it is")
    assert str(group._scores["maml"]) in line
    assert group.tested([]) == {}, "no worker was to test it"
