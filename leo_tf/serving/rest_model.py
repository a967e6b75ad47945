"""A model on a server, through TensorFlow Serving's REST interface.

It uses NumPy and the standard library only, and sends headers for a proxy.
"""

import base64
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_tf.errors import RequestError, one_line, refusal, refused, without_secrets

_ONLY_OUTPUTS = {"embed_images": "features"}
_MODEL_PATH = "/v1/models/leo"
_ABOUT = "/page/model.json"  # of our server
_WARNING = re.compile('299 - "(.*)"')  # of our server, as in RFC 7234
# Statuses that report a mistake in the request, not in the server.
_TOO_LARGE = 413
_REFUSALS = (400, _TOO_LARGE)
_MOVED = (301, 302, 303, 307, 308)
_UNKNOWN = (401, 403)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a POST would become a GET, and another host get the token."""

    def redirect_request(self, *unused: Any) -> None:
        return None


class RestModel:
    """A model behind TensorFlow Serving's REST interface, on any server.

    `url` is the URL of the server or of its model, perhaps with "/versions/NUMBER". For
    the other arguments see `Classifier`.

    Raises:
      ValueError: if the URL or the headers cannot be sent.
    """

    def __init__(
        self, url: str, timeout: float, headers: Mapping[str, str] | None = None
    ):
        self.timeout = timeout
        try:
            parts = urllib.parse.urlsplit(url)
            is_whole = parts.hostname and parts.port != 0 and not re.search(r"\s", url)
        except ValueError:  # wrong port or brackets
            is_whole = False
        if not is_whole:
            expected = "http://HOST:PORT, or the URL of a model there"
            raise refused("source", expected, repr(without_secrets(url)))
        user, at, host = parts.netloc.rpartition("@")
        path = parts.path.rstrip("/").removesuffix(":predict") or _MODEL_PATH
        parts = parts._replace(netloc=host, path=f"{path}:predict", fragment="")
        self._url, self.url = parts.geturl(), without_secrets(parts.geturl())
        self._headers = {"Content-Type": "application/json"}
        if at:
            basic = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
            self._headers["Authorization"] = f"Basic {basic}"
        self._headers |= _checked_headers({} if headers is None else headers)
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __call__(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Returns name -> output of a signature for arrays.

        Warns, as our server says it, of a way or shot beyond those of its test.

        Raises:
          RequestError: if the model refuses the inputs, or the server their size.
          ConnectionError: if the server, or a proxy, does not answer.
        """
        lists = {name: _listed(np.asarray(value)) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": lists}).encode()
        answer, warning = self._post(body, _ONLY_OUTPUTS.get(signature))
        if warning:
            warnings.warn(warning, stacklevel=4)  # of whoever called `fit`
        outputs = {n: np.asarray(v) for n, v in answer.items()}
        return {
            name: value.astype(np.float32) if value.dtype.kind == "f" else value
            for name, value in outputs.items()
        }

    def embedding(self) -> Any:
        """Returns what the server records of the model's features; None if nothing.

        Raises:
          ConnectionError: if the server does not tell. Only ours does.
        """
        url = urllib.parse.urljoin(self._url, _ABOUT)
        request = urllib.request.Request(url, headers=self._headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return json.load(answer)["embedding"]
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            where, expected = without_secrets(url), "the model's embedding"
            received = one_line(str(error) or type(error).__name__)
            raise ConnectionError(
                f"{where}: expected {expected}, received {received}."
            ) from None

    def _post(self, body: bytes, only: str | None) -> tuple[dict[str, Any], str]:
        """Returns outputs, and a warning or ""."""
        request = urllib.request.Request(self._url, body, self._headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                outputs = _field(answer.read(), "outputs")
                kind = answer.headers.get_content_type()
                said = _WARNING.fullmatch(answer.headers.get("Warning", ""))
            warning = one_line(said[1]) if said else ""
            if only and isinstance(outputs, list):  # a single output has no name
                return {only: outputs}, warning
            if isinstance(outputs, dict):
                return outputs, warning
            received = f"{answer.status}, {kind} without `outputs`"
        except urllib.error.HTTPError as error:
            said = _field(_body(error), "error")
            if error.code in _REFUSALS and said is not None:
                raise RequestError(refusal(str(said))) from None
            if error.code == _TOO_LARGE:
                expected = f"a size in bytes that {self.url} or its proxy accepts"
                raise refused("request", expected, str(len(body))) from None
            received = f"{error.code}, {said or error.reason}"
            received += self._advice(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            received = str(reason or type(error).__name__)
            if type(reason).__name__ == "SSLCertVerificationError":
                received += "; SSL_CERT_FILE can name a file of certificates to trust"
        received = one_line(received + self._proxy())
        raise ConnectionError(f"{self.url}: expected an answer, received {received}.")

    def _advice(self, error: urllib.error.HTTPError) -> str:
        if error.code in _MOVED and error.headers["Location"]:
            target = urllib.parse.urljoin(self._url, error.headers["Location"])
            target = without_secrets(target.removesuffix(":predict"))
            return f", moved to {target}: use that as source if you trust it"
        if error.code in _UNKNOWN:
            return "; `headers` of the Classifier, or user:password@ in its URL, log in"
        return ""

    def _proxy(self) -> str:
        parts = urllib.parse.urlsplit(self._url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if not proxy or urllib.request.proxy_bypass(parts.netloc):
            return ""
        variable = f"{parts.scheme}_proxy"
        return f", through the proxy {without_secrets(proxy)} of {variable} (no_proxy=)"


def _listed(array: np.ndarray) -> list[Any]:
    """Returns lists of numbers, or of bytes in TensorFlow Serving's format."""
    if array.dtype.kind != "O":
        return array.tolist()
    return [{"b64": base64.b64encode(each).decode()} for each in array.tolist()]


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuses invalid headers, without showing them, because they may be secret."""
    if not isinstance(headers, Mapping):
        raise refused("headers", "names and texts", type(headers).__name__)
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(
            r"[\w!#$%&'*+.^`|~-]+", name, re.A
        ):
            raise refused("headers", "names of letters, digits and -", "another name")
        if not isinstance(value, str):
            raise refused(f"headers: {name}", "text", type(value).__name__)
        if not re.fullmatch(r"[\t\x20-\x7e\xa0-\xff]*", value):
            received = "other text, or a line break: `.strip()` removes one at the end"
            raise refused(f"headers: {name}", "Latin characters in one line", received)
    return dict(headers)


def _body(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def _field(body: bytes, name: str) -> Any:
    """Returns a field of a JSON object; None if there is no object or field."""
    try:
        return json.loads(body)[name]
    except (ValueError, KeyError, TypeError):
        return None
