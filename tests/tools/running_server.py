"""The server of `--mode=serve` in a thread of the test process, and HTTP by hand."""

import contextlib
import http.client
import importlib
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from served_models import clusters, numpy_answers

from leo_tf.serving import server
from leo_tf.serving.model_versions import Versions

for _package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(_package, reason="the extra `serve` is not installed")
server_app = importlib.import_module("leo_tf.serving.rest_api")
uvicorn = importlib.import_module("uvicorn")


PREDICT = "/v1/models/leo:predict"
SUPPORT, LABELS = clusters(3, 2)
QUERIES = clusters(3, 1, seed=1)[0]
INPUTS = {
    "support": SUPPORT.tolist(),
    "labels": LABELS.tolist(),
    "queries": QUERIES.tolist(),
}
GOOD = {"inputs": INPUTS}


@contextlib.contextmanager
def serving(directory, max_request_bytes=2**20, cors_origins=()):
    """Serves a directory; gives the port and the `Versions`."""
    versions = Versions(directory)
    versions.refresh()
    versions.require()
    listening = server.bound("127.0.0.1", 0)
    listening.listen()
    application = server_app.application(versions, max_request_bytes, cors_origins)
    running = uvicorn.Server(server.configured(application))
    thread = threading.Thread(target=running.run, args=[[listening]], daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], versions
    finally:
        running.should_exit = True
        thread.join(10)
        listening.close()


class Client:
    """One kept connection to a server on loopback."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, method, path, body=None, headers=None):
        """(status, headers, body)."""
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def ask(self, method, path, body=None, headers=None):
        """(status, JSON)."""
        status, _, content = self.send(method, path, body, headers)
        return status, json.loads(content)

    def predict(self, body, path="/v1/models/leo:predict", headers=None):
        """(status, JSON) for bytes, or for what JSON can say."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, body, headers)


def wait_for(condition, seconds=10.0):
    """Waits until the condition holds, and fails if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def check_good(answer, scale=1.0):
    status, content = answer
    assert status == 200, content
    expected = numpy_answers(SUPPORT, LABELS, QUERIES, scale)
    outputs = content["outputs"]
    assert set(outputs) == {"probabilities", "logits", "classes"}
    np.testing.assert_allclose(outputs["probabilities"], expected[0], atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], expected[1], rtol=1e-4, atol=1e-4)
    assert outputs["classes"] == expected[2].tolist()


def refused(answer, *words, status=400):
    assert answer[0] == status, answer
    assert set(answer[1]) == {"error"}
    assert all(word in answer[1]["error"] for word in words), answer


def with_(**inputs):
    return {"inputs": {**INPUTS, **inputs}}


def half_sent(port):
    """A connection with half a request on it, and the other half."""
    body = json.dumps(GOOD).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(head.encode() + body[:50])
    return connection, body[50:]


def copy(model, directory, version):
    """One more version, in place at once as an export is."""
    shutil.copytree(model, directory / f".{version}")
    (directory / f".{version}").rename(directory / str(version))
