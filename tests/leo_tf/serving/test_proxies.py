"""The client and a server with a proxy: credentials, redirects and errors."""

import base64
import copy
import http.server
import pickle
import re
import ssl
import threading
import urllib.error

import pytest

from leo_tf.serving.classifier import Classifier
from leo_tf.serving.rest_model import RestModel

ROWS, LABELS = [[1.0], [2.0]], [0, 1]
ANSWER = (
    '{"outputs": {"classifier": [[1], [2]], "support_loss": 0, "support_accuracy": 1}}'
)
SECRET = "s3cr3t"


@pytest.fixture
def proxy():
    """Starts a server that sends given answers and records requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.asked.append(
                (self.command, self.path, dict(self.headers), body)
            )
            self.send_response(self.server.status)
            for header in self.server.headers.items():
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(self.server.text.encode())

        do_POST = do_GET = do_CONNECT = answer

        def log_message(self, *unused):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.status, server.headers = [], 200, {}
        server.text, server.host = ANSWER, f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def error_of(classifier, kind=ConnectionError) -> str:
    with pytest.raises(kind) as caught:
        classifier.fit(ROWS, LABELS)
    assert SECRET not in f"{caught.value} {classifier!r}"
    return str(caught.value)


def test_headers_go_with_every_request(proxy, tmp_path):
    headers = {"Authorization": f"Bearer {SECRET}", "X-Team": "vision"}
    classifier = Classifier(f"http://{proxy.host}", headers=headers)
    assert SECRET not in repr(classifier)
    classifier.fit(ROWS, LABELS).save(tmp_path / "c.npz")
    assert SECRET.encode() not in (tmp_path / "c.npz").read_bytes()
    loaded = Classifier.load(tmp_path / "c.npz", classifier.source, headers=headers)
    for each in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        each.fit(ROWS, LABELS)
    assert len(proxy.asked) == 4
    for _, _, sent, _ in proxy.asked:
        assert sent["Authorization"] == headers["Authorization"]
        assert sent["X-Team"] == "vision"
        assert sent["Content-Type"] == "application/json"


def test_headers_are_a_parameter_like_the_others(proxy):
    headers = {"Authorization": "a"}
    classifier = Classifier(f"http://{proxy.host}", headers=headers).fit(ROWS, LABELS)
    assert classifier.get_params()["headers"] is headers
    classifier.set_params(headers={"Authorization": "b"}).fit(ROWS, LABELS)
    assert [sent["Authorization"] for _, _, sent, _ in proxy.asked] == ["a", "b"]
    clone = pytest.importorskip("sklearn.base").clone
    assert clone(classifier).get_params() == classifier.get_params()


def test_user_and_password_of_the_url_authenticate_and_are_never_shown(proxy):
    source = f"http://me:{SECRET}%40@{proxy.host}"
    classifier = Classifier(source).fit(ROWS, LABELS)
    basic = base64.b64encode(f"me:{SECRET}@".encode()).decode()
    [(_, path, sent, _)] = proxy.asked
    assert sent["Authorization"] == f"Basic {basic}" and SECRET not in sent["Host"]
    assert path == "/v1/models/leo:predict" and SECRET not in repr(classifier)
    Classifier(source, headers={"authorization": "mine"}).fit(ROWS, LABELS)
    assert proxy.asked[1][2]["Authorization"] == "mine"
    proxy.status = 500
    assert f"http://{proxy.host}/v1/models" in error_of(classifier)


def test_a_query_of_the_url_is_sent_and_never_shown(proxy):
    source = f"http://{proxy.host}/gate/v1/models/a?key={SECRET}"
    classifier = Classifier(source).fit(ROWS, LABELS)
    assert proxy.asked[0][1] == f"/gate/v1/models/a:predict?key={SECRET}"
    assert SECRET not in repr(classifier)
    proxy.status = 404
    error_of(classifier)


def test_a_url_may_end_in_what_it_is_asked_by(proxy):
    for end in ("", "/", "/v1/models/leo", "/v1/models/leo:predict"):
        Classifier(f"http://{proxy.host}{end}").fit(ROWS, LABELS)
    assert {path for _, path, _, _ in proxy.asked} == {"/v1/models/leo:predict"}


@pytest.mark.parametrize(
    "source",
    ["localhost:8501", "localhost/v1/models/leo", f"me:{SECRET}@host:8501",
     "grpc://host:8500", f"http:/me:{SECRET}@host"],
)  # fmt: skip
def test_a_source_that_lacks_http_is_told_of_it(source):
    said = error_of(Classifier(source), ValueError)
    assert said.startswith("source: expected ") and "http://HOST:PORT" in said


@pytest.mark.parametrize(
    "url",
    ["http://", "http://host:port", f"http://me:{SECRET}@", f"http://me:{SECRET}@h:x",
     "http://ho st", "http://[::1", f"http://host/v1?key={SECRET} \n"],
)  # fmt: skip
def test_a_url_that_is_none_is_a_mistake_of_the_source(url):
    said = error_of(Classifier(url), ValueError)
    assert said.startswith("source: expected http://HOST:PORT, or ")


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"Authorization": f"Bearer {SECRET}\n"}, "Authorization: .*a line break"),
     ({"Authorization": f"{SECRET}\r\nX-Other: 1"}, "Authorization: .*a line break"),
     ({"Authorization": f"\u2028{SECRET}"}, "Authorization: expected Latin"),
     ({"Authorization": SECRET.encode()}, "Authorization: expected text.*bytes"),
     ({f"Bearer: {SECRET}": ""}, "expected names of letters"),
     ({3: ""}, "expected names"), ([SECRET], "names and texts, received list"),
     (SECRET, "names and texts, received str")],
)  # fmt: skip
def test_headers_that_cannot_be_sent_are_refused_without_showing_them(headers, said):
    classifier = Classifier("http://127.0.0.1:1", headers=headers)
    assert re.match(f"headers.*{said}", error_of(classifier, ValueError))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_names_where_to(proxy, status):
    proxy.status = status
    target = "https://gate.example:8443/v1/models/leo"
    proxy.headers = {"Location": f"{target}:predict"}
    said = error_of(Classifier(f"http://{proxy.host}", headers={"A": SECRET}))
    assert f"received {status}, " in said
    assert f", moved to {target}: use that as source" in said
    proxy.headers = {"Location": "/other/v1/models/leo:predict"}
    said = error_of(Classifier(f"http://me:{SECRET}@{proxy.host}"))
    assert f"moved to http://{proxy.host}/other/v1/models/leo: " in said
    assert len(proxy.asked) == 2


def test_a_proxy_that_refuses_or_fails_is_told_from_the_model(proxy):
    proxy.text = "<html>nginx</html>"
    for status, words in {
        400: "received 400, Bad Request",
        401: "401, Unauthorized; `headers` of the Classifier",
        403: "403, Forbidden; `headers` of the Classifier",
        502: "502, Bad Gateway",
        504: "504, Gateway Timeout",
        200: "200, text/html without `outputs`",
    }.items():
        proxy.status, proxy.headers = status, {"Content-Type": "text/html"}
        assert words in error_of(Classifier(f"http://{proxy.host}"))
    proxy.status = 413
    said = error_of(Classifier(f"http://{proxy.host}"), ValueError)
    assert said.startswith("request: expected a size in bytes that http://")


@pytest.mark.parametrize("text", ["[]", "{}", '{"outputs": [1]}', "", "\xff"])
def test_an_answer_that_is_none_of_a_model_is_an_error_of_the_server(proxy, text):
    proxy.text = text
    assert "without `outputs`" in error_of(Classifier(f"http://{proxy.host}"))


def test_the_proxy_of_the_environment_is_named(proxy, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:1")
    source = f"http://{proxy.host}"
    said = error_of(Classifier(source))
    assert "refused, through the proxy http://***@127.0.0.1:1 of http_proxy" in said
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Classifier(source).fit(ROWS, LABELS)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", f"http://{proxy.host}")
    proxy.status = 407
    said = error_of(Classifier("https://gate.example", headers={"A": SECRET}))
    assert "407" in said and f"through the proxy http://{proxy.host} of https_" in said
    command, _, sent, _ = proxy.asked[-1]
    assert command == "CONNECT" and "A" not in sent  # no token for the proxy


def test_a_certificate_that_is_not_trusted_names_where_to_put_it(monkeypatch):
    def fail(*unused, **more):
        reason = ssl.SSLCertVerificationError("certificate verify failed")
        raise urllib.error.URLError(reason)

    classifier = Classifier("https://gate.example")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", fail)
    said = error_of(classifier)
    assert "certificate verify failed" in said and "SSL_CERT_FILE" in said
    assert RestModel("HTTPS://h", 1).url == "https://h/v1/models/leo:predict"
