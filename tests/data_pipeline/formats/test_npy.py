"""Tests of arrays that are written in batches. Reading: see `test_other_files.py`."""

import numpy as np
import pytest

from leo_tf.data_pipeline.formats.npy import write_rows
from leo_tf.errors import DiskError


@pytest.mark.parametrize("rows", [3, 5, 1000, 10**7])
def test_rows_are_those_of_the_batches_whatever_was_expected(tmp_path, rows):
    batches = np.arange(60.0).reshape(5, 3, 4)
    path = tmp_path / "a" / "rows.npy"
    write_rows(path, np.float32, (rows, 3, 4), [batches[:2], batches[2:]])
    read = np.load(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, batches)
    assert np.load(path, mmap_mode="r").shape == (5, 3, 4)
    assert [each.name for each in path.parent.iterdir()] == ["rows.npy"]


def test_a_batch_that_fails_leaves_the_old_file(tmp_path):
    def batches():
        yield np.ones([2, 3])
        raise OSError("no room")

    path = tmp_path / "rows.npy"
    path.write_bytes(b"old")
    with pytest.raises(DiskError, match="expected to write a file"):
        write_rows(path, np.uint8, (4, 3), batches())
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
