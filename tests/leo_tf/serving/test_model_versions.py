"""Tests that the server serves the newest version that works, from start to end."""

import inspect
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import types

import pytest
from running_server import (
    GOOD,
    Client,
    check_good,
    copy,
    half_sent,
    refused,
    serving,
    wait_for,
)
from served_models import write_model

from leo_tf.cli import main as command_line
from leo_tf.cli.options import OPTIONS
from leo_tf.console import Console
from leo_tf.errors import InputError
from leo_tf.serving import server
from leo_tf.serving.model_versions import Versions
from leo_tf.serving.models import LocalModel

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def thrice(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("thrice") / "1", scale=3.0)


def test_the_newest_version_is_picked_up_while_requests_run(exported, thrice, tmp_path):
    copy(exported / "4", tmp_path, 9)
    with serving(tmp_path) as (port, versions):
        client = Client(port)
        versions.watch(0.05)
        check_good(client.predict(GOOD))
        copy(thrice, tmp_path, 10)
        while versions.current.version == 9:
            assert client.predict(GOOD)[0] == 200
        check_good(client.predict(GOOD), scale=3.0)
        old = "/v1/models/leo/versions/9:predict"
        refused(client.predict(GOOD, old), "Specific(leo, 9)", status=404)
        states = client.ask("GET", "/v1/models/leo")[1]["model_version_status"]
        assert [(s["version"], s["state"]) for s in states] == [
            ("10", "AVAILABLE"),
            ("9", "END"),
        ]
        shutil.rmtree(tmp_path / "10")  # a step back
        wait_for(lambda: versions.current.version == 9)
        check_good(client.predict(GOOD))
        versions.close()


NOT_SERVED = "warning: version 2 is not served: "


def noting():
    """Returns a quiet console, and the list of its warnings."""
    console, warnings = Console(quiet=True), []
    console.warn = warnings.append
    return console, warnings


def damage(path, how):
    if how == "no graph":
        (path / "saved_model.pb").unlink()
    elif how == "other variables":
        file = next((path / "variables").glob("*.data*"))
        file.write_bytes(bytes(len(file.read_bytes())))
    elif how == "half a graph, no manifest":
        (path / "export.json").unlink()
        graph = path / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:500])
    elif how == "no export.json to read":
        (path / "export.json").write_text("{")
    elif how == "another digest":
        metadata = json.loads((path / "export.json").read_text())
        metadata["files"]["saved_model.pb"] = "0" * 64
        (path / "export.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    "how",
    [
        "no graph",
        pytest.param("other variables", marks=pytest.mark.slow),
        "half a graph, no manifest",
        "no export.json to read",
        pytest.param("another digest", marks=pytest.mark.slow),
    ],
)
def test_a_broken_version_is_passed_over_with_one_warning(
    exported, thrice, tmp_path, how
):
    copy(exported / "4", tmp_path, 1)
    console, warnings = noting()
    versions = Versions(tmp_path, console)
    versions.refresh()
    copy(thrice, tmp_path, 2)
    damage(tmp_path / "2", how)
    for _ in range(3):
        versions.refresh()
    (tmp_path / "2" / "more").touch()  # tried again, and still broken
    versions.refresh()
    assert versions.current.version == 1
    assert len(warnings) == 1 and warnings[0].startswith(NOT_SERVED)
    assert versions.states()[2][0] == "END" and versions.states()[2][1]
    shutil.rmtree(tmp_path / "2")
    copy(thrice, tmp_path, 2)  # fixed
    versions.refresh()
    assert versions.current.version == 2 and len(warnings) == 1
    assert versions.states() == {2: ("AVAILABLE", ""), 1: ("END", "")}


def test_a_broken_version_that_is_gone_is_forgotten(exported, tmp_path):
    copy(exported / "4", tmp_path, 1)
    versions = Versions(tmp_path, noting()[0])
    (tmp_path / "2").mkdir()
    versions.refresh()
    assert versions.states().keys() == {1, 2}
    (tmp_path / "2").rmdir()
    versions.refresh()
    assert versions.states() == {1: ("AVAILABLE", "")}


def test_a_model_without_the_signatures_or_one_that_fails_is_not_served(tmp_path):
    write_model(tmp_path / "1", max_classes=1)  # refuses everything
    versions = Versions(tmp_path)
    versions.refresh()
    assert versions.current is None and "classes" in versions.states()[1][1]


def test_every_signature_has_answered_before_the_first_user_asks(exported, monkeypatch):
    asked, call = [], LocalModel.__call__

    def noted(self, signature, inputs):
        asked.append(signature)
        return call(self, signature, inputs)

    monkeypatch.setattr(LocalModel, "__call__", noted)
    Versions(exported).refresh()
    assert sorted(asked) == ["adapt", "embed", "predict", "serving_default"]


def test_a_directory_that_cannot_be_read_for_once_ends_nothing(
    exported, thrice, tmp_path, monkeypatch
):
    copy(exported / "4", tmp_path, 1)
    versions = Versions(tmp_path)
    versions.refresh()

    def fail(unused_path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr(pathlib.Path, "is_dir", fail)
        versions.refresh()
    assert versions.current.version == 1
    copy(thrice, tmp_path, 2)
    versions.refresh()
    assert versions.current.version == 2


def test_a_warning_of_a_long_path_has_its_reason(thrice, tmp_path):
    directory = tmp_path / ("long" * 30)
    copy(thrice, directory, 1)
    damage(directory / "1", "another digest")
    console, warnings = noting()
    versions = Versions(directory, console)
    versions.refresh()
    assert "expected SHA-256 0000" in warnings[0] and "\n" not in warnings[0]
    with pytest.raises(InputError, match="expected SHA-256 0000"):
        versions.require()


@pytest.fixture
def program(exported, thrice, tmp_path):
    """Starts `--mode=serve` in a process: (process, port, first line)."""
    copy(exported / "4", tmp_path, 1)
    command = [sys.executable, "run_leo.py", "--mode=serve", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--export_dir={tmp_path}"],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stderr.readline()
    yield process, int(re.search(r":(\d+) ", line)[1]), line
    process.kill()
    process.wait()
    process.stderr.close()
    process.stdout.close()


def test_the_program_serves_picks_up_and_finishes_what_runs(program, thrice, tmp_path):
    process, port, line = program
    url = f"http://127.0.0.1:{port}"
    assert line == f"Serving centroid, version 1, on {url} ({url}/docs).\n"
    client = Client(port)
    check_good(client.predict(GOOD))
    copy(thrice, tmp_path, 2)
    wait_for(lambda: client.ask("GET", "/v1/models/leo/versions/2")[0] == 200)
    check_good(client.predict(GOOD), scale=3.0)
    assert process.stderr.readline() == "Serving version 2 from now on.\n"
    connection, rest = half_sent(port)
    client.ask("GET", "/healthz")  # so that the half has been read
    process.send_signal(signal.SIGTERM)
    with pytest.raises(OSError):
        while True:  # until it refuses connections
            Client(port).ask("GET", "/healthz")
    connection.sendall(rest)
    assert b"200" in connection.recv(10_000).splitlines()[0]
    connection.close()
    assert process.wait(15) == 0
    assert process.stderr.read() == "" and process.stdout.read() == ""


@pytest.mark.parametrize(
    ("tested", "said"), [((5, 1), ", measured at 5-way 1-shot,"), (None, ",")]
)
def test_the_first_line_says_at_which_way_and_shot_the_model_was_measured(tested, said):
    model = types.SimpleNamespace(tested=tested)
    served = types.SimpleNamespace(metadata={"method": "leo"}, version=3, model=model)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = server._described(served, listening)
    assert line.startswith(f"Serving leo, version 3{said} on http://127.0.0.1:")


def main(*arguments):
    return command_line.main(["run_leo.py", "--mode=serve", *arguments])


def test_an_address_in_use_is_one_line(exported, port, capsys):
    assert main(f"--export_dir={exported}", f"--port={port}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --host, --port: expected ") and str(port) in error
    assert "in use" in error and error.count("\n") == 1
    assert main(f"--export_dir={exported}", "--host=no such host", "--port=0") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(exported, monkeypatch, capsys):
    monkeypatch.setattr(server, "_PACKAGES", ("starlette", "no_such_package"))
    assert main(f"--export_dir={exported}") == 2
    assert "pip install 'leo-tf[serve]'" in capsys.readouterr().err


def test_a_directory_without_a_version_that_works_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").touch()
    reasons = {"no/such": "No such file", "empty": "none", "text": "Not a directory"}
    for made, reason in reasons.items():
        assert main(f"--export_dir={tmp_path / made}", "--port=0") == 3
        error = capsys.readouterr().err
        assert "an exported version that works" in error
        assert f"received {reason}" in error
    (tmp_path / "3").mkdir()
    assert main(f"--export_dir={tmp_path}", "--port=0") == 3
    assert "received version 3" in capsys.readouterr().err


def test_a_version_in_place_of_the_directory_of_versions_is_told(exported, capsys):
    assert main(f"--export_dir={exported / '4'}", "--port=0") == 3
    assert f"Give {exported}" in capsys.readouterr().err


def test_flags_that_are_not_given_are_the_defaults_of_the_function():
    parameters = inspect.signature(server.serve).parameters
    for name in ("host", "port", "max_request_bytes"):
        assert OPTIONS[name].notes == (f"default: {parameters[name].default}",)


def test_called_from_python_it_answers_prints_nothing_and_imports_no_training_code(
    exported, tmp_path
):
    code = """
import pathlib, sys
from leo_tf.serving import rest_api
from leo_tf.serving.server import serve
pathlib.Path(sys.argv[3]).write_text(" ".join(sys.modules))
serve(sys.argv[1], port=int(sys.argv[2]))
"""
    modules = tmp_path / "modules"
    with server.bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(exported), str(port), str(modules)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def answers():
        try:
            return Client(port).ask("GET", "/healthz")[0] == 200
        except OSError:
            return False

    try:
        wait_for(answers, seconds=60.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
        assert process.returncode == 0 and out == ""
        assert "Serving" not in err and str(port) not in err  # TensorFlow may log
    finally:
        process.kill()
    modules = set(modules.read_text().split())
    assert "leo_tf.serving.rest_api" in modules
    ours = {name for name in modules if name.startswith("leo_tf.")}
    rooms = {name.split(".")[1] for name in ours}
    assert rooms == {"errors", "console", "serving"}
    assert "tensorflow_probability" not in modules
