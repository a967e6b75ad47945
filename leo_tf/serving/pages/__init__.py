"""Pages of the server for people: the page at `/`, and the API page at `/docs`.

Files in `static/` are sent unchanged: no build step, nothing from another host. The
Content-Security-Policy lets a browser load and run only these, and nothing inline.
"""

import pathlib
from typing import Any

from leo_tf.serving.inputs import SAME
from leo_tf.serving.model_versions import Served

PREFIX = "/page/"
MODEL = f"{PREFIX}model.json"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_TITLES = {"leo": "LEO"}


def read_files() -> dict[str, tuple[bytes, str]]:
    """Returns path on the server -> content and media type of all static files."""
    folder = pathlib.Path(__file__).with_name("static")
    return {
        f"{PREFIX}{file.name}": (file.read_bytes(), _TYPES[file.suffix])
        for file in sorted(folder.iterdir())
        if file.suffix in _TYPES
    }


def about(served: Served, max_request_bytes: int) -> dict[str, Any]:
    """Returns the metadata of a model that the page needs, without paths."""
    metadata = served.metadata
    method = str(metadata.get("method", "the model"))
    return {
        "title": _TITLES.get(method, method.replace("_", " ")),
        "version": served.version,
        "tested": _tested(metadata),
        "embedding": _embedding(metadata.get("embedding")),
        "signatures": sorted(served.signature_def),
        "embedding_size": metadata.get("embedding_size"),
        "way": metadata.get("way"),
        "max_classes": metadata.get("max_classes"),
        "max_support": metadata.get("max_support"),
        "pictures": _of_pictures(metadata.get("pictures"), max_request_bytes),
    }


def _embedding(made: Any) -> dict[str, Any] | None:
    """Returns the origin of the features, without the path of the backbone."""
    return {n: made.get(n) for n in SAME} if isinstance(made, dict) else None


def _tested(metadata: dict[str, Any]) -> str:
    try:
        found = metadata["test_accuracy"]
        mean, half = (100 * found[name] for name in ("mean", "half_width_95"))
        shape = f"{found['test']['way']}-way {found['test']['shot']}-shot"
        return f"{mean:.1f} ± {half:.1f} % accuracy in the {shape} test"
    except (KeyError, TypeError):
        return ""


def _of_pictures(pictures: dict[str, Any] | None, max_request_bytes: int) -> Any:
    """Returns the limit of a picture, to whose size base64 adds a third, and more."""
    if not pictures:
        return None
    most = min(pictures["max_picture_bytes"], (max_request_bytes - 1000) * 3 // 4)
    return {"max_picture_bytes": most, "weights": pictures.get("weights")}
