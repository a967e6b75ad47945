"""What one setting accepts: its type, its range, and the words for both."""

import dataclasses
import json
import numbers
import pathlib
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from leo_tf.errors import FlagError, InputError, LeoError, shown
from leo_tf.files import read_json

LARGEST_INTEGER = 2**31 - 1  # int32: steps and counts go through TensorFlow
# Beyond its kind's limit a number is refused, whatever the rule: a larger float is
# infinite as a float32.
_LIMITS = {
    int: (LARGEST_INTEGER, "below 2^31"),
    float: (3.4e38, "finite as a float32"),
}
# Control characters, and surrogates: Python's stand-ins for bytes that are no UTF-8.
_UNFIT_FOR_PATHS = re.compile(
    "[\0-\x1f\x7f-\x9f\ud800-\udfff]|^[A-Za-z][A-Za-z0-9+.-]+:/"
)
# What may stand for each kind; NumPy's scalars are registered with `numbers`.
_TAKEN_FOR = {int: numbers.Integral, float: numbers.Real, bool: bool, str: str}
_MOST_PARAMETER_BYTES = 2**16
_S = TypeVar("_S", bound="Settings")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Checks one value, and says in words what it checks.

    A bool is no number, and an integer may stand for a float.
    """

    kind: type  # bool, int, float or str: what `checked` returns
    expected: str  # what is accepted, for errors and `--help`
    accepts: Callable[[Any], bool] = lambda value: True  # one of the right kind
    optional: bool = False  # whether None is accepted too

    def checked(self, value: Any, where: str, error: type[LeoError] = FlagError) -> Any:
        """Returns the value as `kind`.

        Raises:
          error: beginning with `where`, the flag or the file and field, if the value
            is of another kind or out of range.
        """
        if value is None and self.optional:
            return None
        expected = self.expected
        is_other = isinstance(value, bool) and self.kind is not bool
        right = isinstance(value, _TAKEN_FOR[self.kind]) and not is_other
        if right and self.kind in _LIMITS:
            largest, words = _LIMITS[self.kind]
            right = abs(value) <= largest  # False for NaN
            expected = expected if right else f"{expected}, {words}"
        if not right or not self.accepts(self.kind(value)):
            raise error(where, expected, _described(value))
        return self.kind(value)


def _described(value: object) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return shown(value)
    return f"a value of type {type(value).__name__}"


def integer(least: int, most: int = LARGEST_INTEGER, optional: bool = False) -> Rule:
    """Integers from `least` to `most`."""
    expected = f"an integer of {least} or more"
    if most < LARGEST_INTEGER:
        expected += f", at most {most}"
    return Rule(int, expected, lambda value: least <= value <= most, optional)


def above_zero(optional: bool = False) -> Rule:
    return Rule(float, "a number above 0", lambda value: value > 0, optional)


def boolean() -> Rule:
    return Rule(bool, "true or false")


def choice(*options: str) -> Rule:
    return Rule(str, f"one of {', '.join(options)}", options.__contains__)


def span() -> Rule:
    """Numbers from a first to a last, counted from 1, as text."""
    return Rule(str, "FIRST-LAST, two numbers such as 200-220", _is_span)


def path() -> Rule:
    """A path; that it exists is checked by whoever opens it.

    TensorFlow takes paths in UTF-8 only, and a terminal obeys control characters. Of a
    URL a directory of that name would be made here.
    """
    expected = "a path on this machine, in UTF-8: a bucket must be mounted"
    return Rule(str, expected, lambda value: not _UNFIT_FOR_PATHS.search(value))


def shares_in(text: str) -> tuple[float, ...] | None:
    """Returns the three shares above 0 that text names, or None if it names none."""
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        return None
    is_whole = len(shares) == 3 and min(shares) > 0 and abs(sum(shares) - 1) < 1e-6
    return shares if is_whole else None


def class_split() -> Rule:
    """Shares of train, val and test, or the path of a JSON file; or nothing."""

    def accepts(value: str) -> bool:
        is_file = value.lower().endswith(".json") and path().accepts(value)
        return not value or is_file or shares_in(value) is not None

    expected = "three shares that sum to 1, such as 0.64,0.16,0.2, or the path of a "
    return Rule(str, f"{expected}.json file", accepts)


def read_parameters(value: str, where: str) -> str:
    """Returns a JSON object in a line: `value` itself, or what a file of it holds.

    So a configuration holds what the file held, whatever becomes of that.

    Raises:
      FlagError: beginning with `where`, if it is none.
    """
    if not value:
        return ""
    expected = "a JSON file of an object: a field for each parameter"
    try:
        if not value.startswith("{"):
            found = read_json(pathlib.Path(value), _MOST_PARAMETER_BYTES)
        else:
            found = json.loads(value)
    except (OSError, ValueError) as error:
        raise FlagError(where, expected, shown(str(error))) from error
    if not isinstance(found, dict):
        raise FlagError(where, expected, _described(found))
    return json.dumps(found, sort_keys=True)


def _is_span(value: str) -> bool:
    match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value, re.ASCII)
    return match is not None and 1 <= int(match[1]) <= int(match[2])


def is_method_name(value: str) -> bool:
    """Whether text has the shape of a method's name, or of package.module:Class.

    Or of sklearn:package.module.Class.
    """
    module, colon, name = value.rpartition(":")
    if module == "sklearn":
        return all(map(str.isidentifier, name.split(".")))
    return all(map(str.isidentifier, [*(module.split(".") if colon else ()), name]))


def is_file_name(value: str) -> bool:
    """Whether text can be part of a path, without leading out of it."""
    tricks = value == "." or any(trick in value for trick in ("/", "\\", ".."))
    return bool(value) and value.isprintable() and value == value.strip() and not tricks


def setting(default: Any, help_text: str, rule: Rule, symbol: str = "") -> Any:
    """Returns a dataclass field with its help, its rule and its symbol in the paper."""
    metadata = {"help": help_text, "rule": rule, "symbol": symbol}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of frozen dataclasses made of `setting`s: checks each when constructed.

    Raises:
      FlagError: naming the first field whose value its rule refuses.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = field.metadata["rule"].checked(value, f"--{field.name}")
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_dict(cls: type[_S], values: Any, source: str, group: str) -> _S:
        """Returns the settings a JSON object holds; defaults for those it lacks.

        Raises:
          InputError: naming the file `source` and its field `group`, if `values` is no
            object, or has an unknown or a bad field.
        """
        rules = {f.name: f.metadata["rule"] for f in dataclasses.fields(cls)}
        check_object(values, rules, f"{source}: `{group}`")
        for name, value in values.items():
            rules[name].checked(value, f"{source}: `{group}.{name}`", InputError)
        return cls(**values)


def check_object(values: Any, known: Collection[str], source: str) -> None:
    """Refuses, beginning with `source`, what is no dict with keys among `known`."""
    if not isinstance(values, dict):
        raise InputError(source, "an object with named fields", _described(values))
    for name in values:
        if name not in known:
            raise InputError(source, f"fields among {', '.join(known)}", shown(name))
