"""Tests of the estimated times of stages for pictures."""

import pytest

from leo_tf.data_pipeline.images import decoding
from leo_tf.data_pipeline.images.pictures import find_pictures
from leo_tf.embedding import stage_times


@pytest.mark.parametrize(("cores", "workers"), [(2, 2), (64, 16)])
def test_decoding_is_estimated_for_as_many_processes_as_decode(
    cores, workers, monkeypatch
):
    monkeypatch.setattr(decoding, "cores", lambda: cores)
    monkeypatch.setattr(stage_times, "_seconds_of", lambda work: 8.0)
    seconds = stage_times.decoding_seconds(find_pictures("glyphs"), 8)
    assert seconds == 8.0 / (stage_times._SAMPLE // 2) / workers
