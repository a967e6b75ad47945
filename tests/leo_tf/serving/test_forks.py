"""Tests that a classifier in a forked process answers or raises, and never hangs."""

import http.server
import importlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from forks import in_fork
from served_models import clusters, write_model

from leo_tf.serving.classifier import Classifier

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
REFUSED = "ForkError: TensorFlow: expected a process that was not forked after"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("exported") / "1").parent


def test_a_fork_after_tensorflow_is_refused_with_what_to_do(exported):
    support, labels = clusters()
    fitted, fresh = Classifier(exported).fit(support, labels), Classifier(exported)
    for call in (
        lambda: fitted.predict(support),
        lambda: fitted.partial_fit(support, labels),
        lambda: fresh.fit(support, labels),
    ):
        said = in_fork(call)
        assert said.startswith(REFUSED)
        assert all(word in said for word in ('"spawn"', '"loky"', "http://HOST:PORT"))
    assert fitted.predict(support).tolist() == labels.tolist()  # here nothing changed


def test_so_is_one_that_knew_nothing_of_us_before(exported):
    def call():
        del sys.modules["leo_tf.errors"]
        importlib.import_module("leo_tf.errors").check_not_forked()

    if not os.path.isdir("/proc/self/task"):
        pytest.skip("only Linux counts the threads of a process")
    assert in_fork(call).startswith(REFUSED)


def test_a_fork_of_a_fork_is_refused_too(exported):
    classifier = Classifier(exported).fit(*clusters())
    said = in_fork(lambda: in_fork(lambda: classifier.predict(clusters()[0])))
    assert said.startswith(REFUSED)


def test_of_a_url_it_answers_in_a_fork():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b'{"outputs": {"classes": [1], "logits": [[0, 1]],'
                b' "probabilities": [[0.25, 0.75]], "classifier": [[1, 2], [3, 4]],'
                b' "support_loss": 0.5, "support_accuracy": 1}}'
            )

        def log_message(self, *unused):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        classifier = Classifier(f"http://127.0.0.1:{server.server_port}")
        classifier.fit([[1.0], [2.0]], ["a", "b"])
        assert in_fork(lambda: classifier.predict([[1.0]])) == "['b']"
        server.shutdown()


@pytest.fixture(scope="module")
def before(exported, tmp_path_factory):
    """Returns a finished process that forked before TensorFlow had computed.

    Its child answered, adapted again, and printed its modules to standard error.
    """
    support, labels = clusters()
    directory = tmp_path_factory.mktemp("before")
    Classifier(exported).fit(support, labels).save(directory / "c.npz")
    np.save(directory / "x.npy", support)
    program = f"""
import sys
import numpy as np
from leo_tf.serving import Classifier
classifier = Classifier.load({str(directory / "c.npz")!r}, {str(exported)!r})
x = np.load({str(directory / "x.npy")!r})

def ask():
    answers = [*classifier.predict(x), *classifier.predict(x[:1])]
    classifier.fit(x[:2], [0, 1])
    print(*sys.modules, file=sys.stderr, flush=True)
    return answers

from forks import in_fork
print(in_fork(ask))
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_fork_before_tensorflow_computes_loads_the_model_itself(before):
    labels = clusters()[1]
    expected = [np.int64(label) for label in (*labels, labels[0])]
    assert before.stdout == f"{expected}\n", before.stderr


def test_none_of_the_training_code_is_imported_to_answer_and_to_learn(before):
    modules = set(before.stderr.split())
    ours = {name for name in modules if name.split(".")[0] == "leo_tf"}
    assert ours == {
        "leo_tf",
        "leo_tf.errors",
        "leo_tf.serving",
        "leo_tf.serving.classifier",
        "leo_tf.serving.closed_forms",
        "leo_tf.serving.inputs",
        "leo_tf.serving.models",
        "leo_tf.serving.pictures",
        "leo_tf.serving.rest_model",
    }
    assert "tensorflow" in modules and "tensorflow_probability" not in modules
