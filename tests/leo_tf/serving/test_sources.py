"""Sources of the client: a path, a URL, and TensorFlow Serving's protocol."""

import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from served_models import clusters, write_model

from leo_tf.errors import refusal
from leo_tf.serving import classifier as serving
from leo_tf.serving.classifier import Classifier
from leo_tf.serving.models import LocalModel


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    write_model(directory / "1")
    return directory


@pytest.fixture(scope="module", params=["path", "url"])
def source(request, exported):
    if request.param == "path":
        yield exported
        return
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from running_server import serving as running

    with running(exported) as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_many_queries_go_in_several_requests(source, monkeypatch):
    support, labels = clusters(3, 4)
    classifier = Classifier(source).fit(support, labels)
    at_once = classifier.predict_proba(support)
    monkeypatch.setattr(serving, "_NUMBERS_PER_REQUEST", 5 * support.shape[1])
    (model, *rest), sizes = classifier._adapted, []

    def counted(signature, inputs):
        sizes.append(len(inputs["queries"]))
        return model(signature, inputs)

    classifier._adapted = counted, *rest
    np.testing.assert_allclose(classifier.predict_proba(support), at_once, atol=1e-6)
    assert sizes == [5, 5, 2]
    assert classifier.predict(support[:0]).shape == (0,)


def test_the_newest_version_is_taken_at_fit_and_kept_until_the_next(tmp_path):
    support, labels = clusters(3, 2)
    write_model(tmp_path / "2")
    classifier = Classifier(tmp_path).fit(support, labels)
    before = classifier.decision_function(support)
    write_model(tmp_path / "10", scale=3.0)
    np.testing.assert_array_equal(classifier.decision_function(support), before)
    after = classifier.fit(support, labels).decision_function(support)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-5)
    pinned = Classifier(tmp_path / "2").fit(support, labels)
    np.testing.assert_array_equal(pinned.decision_function(support), before)


@pytest.mark.parametrize("source", ["/no/such", "", 3, None])
def test_a_source_without_a_model_is_refused(source):
    with pytest.raises(ValueError, match=r"^source: expected .*, received "):
        Classifier(source).fit(*clusters())


def test_scores_count_by_weight(exported):
    support, labels = clusters(3, 2)
    classifier = Classifier(exported).fit(support, labels)
    wrong = np.where(np.arange(6) < 2, 2, labels)
    assert classifier.score(support, labels) == 1.0
    assert classifier.score(support, wrong) == pytest.approx(4 / 6)
    assert classifier.score(support, wrong, [8, 8, 1, 1, 1, 1]) == pytest.approx(0.2)


def modules_after(code) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_a_server_needs_no_tensorflow_in_the_client():
    code = "from leo_tf.serving import Classifier\nClassifier('http://127.0.0.1:1')"
    code += "\ntry: Classifier('http://127.0.0.1:1').fit([[1.0], [2.0]], [0, 1])"
    code += "\nexcept ConnectionError: pass"
    assert "tensorflow" not in modules_after(code)


# Answers of TensorFlow Serving 2, with numbers and errors in json_tensor.cc's format.
TF_SERVING = {
    "outputs": {
        "classifier": [[1.0, 2.5, -3e-05], [0.1, 2e+20, 7.0]],
        "way": 2,
        "support_loss": 0.25,
        "support_accuracy": 1.0,
    }
}  # fmt: skip
TF_SERVING_ERROR = (
    "assertion failed: [labels: expected 2 classes or more, received 1]\n\t "
    "[[{{function_node __inference_adapt_12}}{{node Assert/Assert}}]]"
)


@pytest.fixture
def scripted():
    """Starts a server that sends given answers; yields it and its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.asked = self.path, json.loads(body)
            status, answer = self.server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *unused):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_tensorflow_serving_is_asked_in_its_protocol(scripted):
    server, url = scripted
    server.answer = 200, json.dumps(TF_SERVING, indent=4)
    support = np.float32([[0.1, 2], [3, 4]])
    classifier = Classifier(f"{url}/v1/models/other/versions/3").fit(
        support, ["b", "a"]
    )
    path, request = server.asked
    assert path == "/v1/models/other/versions/3:predict"
    assert set(request) == {"signature_name", "inputs"}
    assert request["signature_name"] == "adapt"
    assert request["inputs"]["labels"] == [1, 0]
    np.testing.assert_array_equal(np.float32(request["inputs"]["support"]), support)
    assert classifier.classifier_.dtype == np.float32
    np.testing.assert_array_equal(
        classifier.classifier_, np.float32(TF_SERVING["outputs"]["classifier"])
    )
    Classifier(url).fit(support, ["b", "a"])
    assert server.asked[0] == "/v1/models/leo:predict"


def test_a_refusal_reads_the_same_from_either_server_and_from_a_path(scripted):
    server, url = scripted
    server.answer = 400, json.dumps({"error": TF_SERVING_ERROR})
    with pytest.raises(ValueError, match=r"^labels: .* or more, received 1$"):
        Classifier(url).fit([[1.0], [2.0]], [0, 1])
    assert refusal("plain words") == "plain words"


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [(404, '{"error": "Servable not found"}', "404, Servable not found"),
     (500, "<html>", "500"), (200, "no JSON", "without `outputs`")],
)  # fmt: skip
def test_a_server_that_fails_is_no_mistake_of_the_request(
    scripted, status, answer, said
):
    server, url = scripted
    server.answer = status, answer
    with pytest.raises(ConnectionError, match=f"{url}/v1.*: expected an.*{said}"):
        Classifier(url).fit([[1.0], [2.0]], [0, 1])


def test_a_bad_request_leaves_the_next_good_one_bit_equal(exported):
    model = LocalModel(exported / "1")
    support, labels = clusters(3, 2)
    inputs = {"support": support, "labels": labels}
    before = model("adapt", inputs)
    for bad in (labels * 0, labels + 1, labels[:3]):
        with pytest.raises(ValueError, match=r"^labels: "):
            model("adapt", {**inputs, "labels": bad})
    after = model("adapt", inputs)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_a_real_export_answers_alike_by_path_and_by_url(trained_export):
    running_server = pytest.importorskip("running_server")
    place = trained_export
    size = json.loads((place / "1" / "export.json").read_text())["embedding_size"]
    support, labels = clusters(4, 3, size=size)
    keep = [0, 3, 4, 5, 6, 9, 10]  # 1, 3, 1 and 2 examples
    support, names = support[keep], np.array(list("wxyz"))[labels[keep]]
    with running_server.serving(place) as (port, _):
        for source in (place, f"http://127.0.0.1:{port}"):
            classifier = Classifier(source).fit(support, names)
            answers = classifier.predict_proba(support)
            loaded = LocalModel(place / "1")
            inputs = {"support": support, "labels": labels[keep], "queries": support}
            expected = loaded("classify", inputs)["probabilities"]
            np.testing.assert_allclose(answers, expected, atol=1e-6)
            assert set(classifier.remove_class("x").predict(support)) <= set("wyz")
            with pytest.raises(ValueError, match=r"^support: expected rows of length"):
                classifier.partial_fit(support * 0, names)
            with pytest.raises(ValueError, match=r"^labels: expected at least 2 class"):
                classifier.fit(support, ["a"] * len(names))


def test_an_export_of_tensorflow_lite_is_named_as_one(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.tflite").write_bytes(b"TFL3")
    for source in (tmp_path, tmp_path / "1"):
        with pytest.raises(ValueError, match="SavedModel, received one of TensorFlow"):
            Classifier(source).fit([[1.0], [2.0]], [0, 1])
