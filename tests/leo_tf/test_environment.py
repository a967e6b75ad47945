"""What computed a result."""

import keras
import tensorflow as tf

from leo_tf.environment import device, versions


def test_versions_name_what_computed_the_result():
    found = versions()
    assert found["tensorflow"] == tf.__version__
    assert found["keras"] == keras.__version__
    assert found["python"].startswith("3.") and found["machine"]


def test_the_device_is_what_tensorflow_has():
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert ("GPU" in device()) == has_gpu and ("CPU" in device()) != has_gpu
