"""Tests the description of the machine, and surroundings that would end a run.

Whole processes with other programs' settings are in `cli/test_main.py` (a run) and in
`tests/test_examples.py` (the library's Keras).
"""

import os
import subprocess
import sys
import textwrap

import keras
import pytest
import tensorflow as tf

import leo_tf
from leo_tf import environment
from leo_tf.environment import device, import_keras, import_matplotlib, versions
from leo_tf.errors import FlagError


def test_versions_name_what_computed_the_result():
    found = versions()
    assert found["tensorflow"] == tf.__version__
    assert found["keras"] == keras.__version__
    assert found["python"].startswith("3.") and found["machine"]


def test_a_package_of_another_name_has_an_unknown_version(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    assert versions()["no-such-package"] == "unknown"


def test_the_digest_of_the_code_is_that_of_our_modules_wherever_they_lie(
    tmp_path, monkeypatch
):
    def digest(*places):
        monkeypatch.setattr(leo_tf, "__path__", [str(place) for place in places])
        return environment.code.__wrapped__()["modules"]

    def write(*paths):
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"name = '{path.name}'")

    checkout, installed = tmp_path / "leo_tf", tmp_path / "site" / "leo_tf"
    write(checkout / "leo_tf" / "a.py", checkout / "configs" / "b.py")
    write(checkout / "data_pipeline" / "c.py", installed / "data_pipeline" / "c.py")
    write(installed / "a.py", installed / "configs" / "b.py")
    found = digest(checkout / "leo_tf", checkout)
    assert found == digest(installed)
    write(checkout / ".venv" / "other.py")
    assert found == digest(checkout / "leo_tf", checkout)
    write(installed / "configs" / "d.py")
    assert found != digest(installed)


def test_tensorflow_warns_of_functions_that_are_traced_again_if_they_are_the_users(
    caplog,
):
    from leo_tf.evaluation.evaluate import make_scorer
    from leo_tf.methods.inductive.nearest_centroid import NearestCentroid

    words = "5 out of the last 5 calls to {} triggered tf.function retracing. Tracing"
    ours = make_scorer({"centroid": NearestCentroid()}).python_function
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        for function in (ours, test_versions_name_what_computed_the_result):
            logger.warning(words.format(function))
        logger.warning("something else")
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    assert any("<function test_versions" in line for line in said)
    assert any("something else" in line for line in said)
    assert not any("make_scorer" in line for line in said)


def test_a_printed_command_works_where_it_is_printed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = f"{environment.program()} --version"
    told = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert told.stdout == f"leo-tf {environment.leo_tf.__version__}\n", told.stderr


def test_a_printed_command_is_short_in_a_checkout_and_needs_none(monkeypatch, tmp_path):
    places = {"PATH": str(tmp_path / "bin")}, str(tmp_path / "bin" / "python3")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh")
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setattr(environment.leo_tf, "__file__", f"{tmp_path}/leo_tf/a.py")
    monkeypatch.setattr(sys, "executable", places[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert environment.program() == "bin/python3 -m leo_tf"
    monkeypatch.setenv("PATH", places[0]["PATH"])
    assert environment.program() == "python -m leo_tf"
    (tmp_path / "run_leo.py").touch()
    assert environment.program() == "python run_leo.py"


def test_the_device_is_what_tensorflow_has():
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert ("GPU" in device()) == has_gpu and ("CPU" in device()) != has_gpu


def test_matplotlib_is_loaded_whatever_the_environment_says_and_says_so_still():
    program = """
        import os
        from leo_tf.environment import import_matplotlib
        assert import_matplotlib().__name__ == "matplotlib"
        assert os.environ["MPLBACKEND"] == "nonsense"
    """
    theirs = {**os.environ, "MPLBACKEND": "nonsense"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=theirs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tensorflow_is_loaded_without_what_keras_may_load_and_others_find_it_still():
    program = """
        import sys
        import matplotlib  # loaded before, so it stays
        from leo_tf.environment import import_tensorflow
        import_tensorflow()
        assert {"tensorflow", "keras", "matplotlib"} <= set(sys.modules)
        assert not {"grain", "pandas", "sklearn"} & set(sys.modules)
        from sklearn.svm import SVC
        from leo_tf.environment import import_tensorflow
        import_tensorflow()  # for a second time
        assert SVC().fit([[0.0], [1.0]], [0, 1]).predict([[0.9]]) == [1]
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_keras_upon_something_else_is_refused_by_its_variable(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(FlagError, match="KERAS_BACKEND: expected tensorflow") as error:
        import_keras()
    assert "received jax. Unset it" in str(error.value)


def test_a_variable_is_as_it_was_after_an_import(monkeypatch):
    for value in ("svg", None):
        if value is None:
            monkeypatch.delenv("MPLBACKEND")
        else:
            monkeypatch.setenv("MPLBACKEND", value)
        assert import_matplotlib().__name__ == "matplotlib"
        assert os.environ.get("MPLBACKEND") == value
