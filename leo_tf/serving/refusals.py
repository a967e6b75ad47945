"""What clients and servers refuse, in three parts, and without anybody's secrets."""

import re


class RequestError(ValueError):
    """What a model or a `Classifier` refuses: the field, the expected, the received."""


def refused(field: str, expected: str, received: object) -> RequestError:
    """Returns the error of a field."""
    return RequestError(f"{field}: expected {expected}, received {received}.")


def without_secrets(source: object) -> str:
    """Returns a path or URL with *** for user, password and query."""
    text = re.sub(r"(?s)^(\w+:/+|(?=[\w.%~-]+:)).*@", r"\1***@", str(source))
    return re.sub(r"(?s)^(\w+:/+[^?]*\?).*", r"\1***", text)


def refusal(message: str) -> str:
    """Returns what the model itself said, without where TensorFlow adds it happened."""
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = message.partition("\n\t [[")[0].strip()
    said = re.fullmatch(r"assertion failed: \[(.*)\]", message, re.DOTALL)
    return said[1] if said else message
