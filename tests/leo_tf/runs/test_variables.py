"""Variables of a checkpoint in directories of any name."""

import tempfile

import pytest
import tensorflow as tf

from leo_tf.errors import CheckpointError
from leo_tf.runs.variables import restore_variables, save_variables


def test_a_path_like_a_pattern_is_read_where_links_can_be_made(tmp_path, monkeypatch):
    place = tmp_path / "run [1]"
    place.mkdir()
    save_variables(place, {"a": tf.Variable([1.0, 2.0])})
    variable = tf.Variable([0.0, 0.0])
    restore_variables(place, {"a": variable})
    assert variable.numpy().tolist() == [1.0, 2.0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="room for a link") as caught:
        restore_variables(place, {"a": variable})
    assert caught.value.where == str(place)
