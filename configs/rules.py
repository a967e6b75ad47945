"""Rules of single settings: type, range, and the words for both."""

import dataclasses
import json
import numbers
import pathlib
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from leo_tf.errors import FlagError, InputError, LeoError, quoted
from leo_tf.files import read_json

LARGEST_INTEGER = 2**31 - 1  # int32: steps and counts go through TensorFlow
# Other numbers are refused by every rule: as a float32 they are infinite or zero.
_LIMITS = {
    int: (1, LARGEST_INTEGER, "below 2^31"),
    float: (1.2e-38, 3.4e38, "of a size from 1.2e-38 to 3.4e38"),
}
# Control characters; surrogates, which stand for bytes that are not UTF-8; URLs.
_UNFIT_FOR_PATHS = re.compile(
    "[\0-\x1f\x7f-\x9f\ud800-\udfff]|^[A-Za-z][A-Za-z0-9+.-]+:/"
)
# Types accepted for each kind.
_TAKEN_FOR = {int: numbers.Integral, float: numbers.Real, bool: bool, str: str}
_S = TypeVar("_S", bound="Settings")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Checks one value, and describes in words what it accepts.

    A bool is not a number. An integer is accepted as a float.
    """

    kind: type  # bool, int, float or str: type that `checked` returns
    expected: str  # description of accepted values, for errors and `--help`
    accepts: Callable[[Any], bool] = lambda value: True  # given a value of this kind
    optional: bool = False  # None is accepted too
    ranges: bool = False  # a range of two such integers, "5-20", is accepted too

    def checked(self, value: Any, where: str, error: type[LeoError] = FlagError) -> Any:
        """Returns the value as `kind`.

        Raises:
          error: if the value is of another kind or out of range; it begins with
            `where`, the flag or the file and field.
        """
        if value is None and self.optional:
            return None
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()  # np.True_ is no bool
        if self.ranges and isinstance(value, str):
            return self._checked_range(value, where, error)
        expected = self.expected
        is_other = isinstance(value, bool) and self.kind is not bool
        right = isinstance(value, _TAKEN_FOR[self.kind]) and not is_other
        if right and self.kind in _LIMITS:
            least, largest, words = _LIMITS[self.kind]
            right = value == 0 or least <= abs(value) <= largest  # False for NaN
            expected = expected if right else f"{expected}, {words}"
        if not right or not self.accepts(self.kind(value)):
            raise error(where, expected, _described(value))
        return self.kind(value)

    def _checked_range(self, value: str, where: str, error: type[LeoError]) -> str:
        if not _is_span(value) or len(set(ends(value))) == 1:
            raise error(where, self.expected, quoted(value))
        number = dataclasses.replace(self, ranges=False)
        first, last = (number.checked(end, where, error) for end in ends(value))
        return f"{first}-{last}"


def _described(value: object) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return quoted(value)
    return f"a value of type {type(value).__name__}"


def integer(least: int, most: int = LARGEST_INTEGER, optional: bool = False) -> Rule:
    """Returns the rule of integers from `least` to `most`."""
    expected = f"an integer of {least} or more"
    if most < LARGEST_INTEGER:
        expected += f", at most {most}"
    return Rule(int, expected, lambda value: least <= value <= most, optional)


def integer_or_range(least: int, most: int) -> Rule:
    """Returns the rule of integers, or of ranges of two as text: "5-20"."""
    number = integer(least, most)
    expected = f"{number.expected}, or a range such as 5-20"
    return dataclasses.replace(number, expected=expected, ranges=True)


def ends(value: int | str) -> tuple[int, int]:
    """Returns first and last of a range such as "5-20". For 5, both are 5."""
    first, _, last = str(value).partition("-")
    return int(first), int(last or first)


def above_zero(optional: bool = False) -> Rule:
    """Returns the rule of positive numbers."""
    return Rule(float, "a number above 0", lambda value: value > 0, optional)


def boolean() -> Rule:
    """Returns the rule of true and false."""
    return Rule(bool, "true or false")


def choice(*options: str) -> Rule:
    """Returns the rule of texts among `options`."""
    return Rule(str, f"one of {', '.join(options)}", options.__contains__)


def span() -> Rule:
    """Returns the rule of ranges of numbers counted from 1, as text."""
    return Rule(str, "FIRST-LAST, two numbers such as 200-220", _is_span)


def path() -> Rule:
    """Returns the rule of paths. Whoever opens one checks that it exists.

    TensorFlow accepts paths in UTF-8 only, and terminals obey control characters. A URL
    would become a directory of that name here.
    """
    expected = "a path on this machine, in UTF-8, without control characters: a bucket "
    expected += "must be mounted"
    return Rule(str, expected, lambda value: not _UNFIT_FOR_PATHS.search(value))


def shares_in(text: str) -> tuple[float, ...] | None:
    """Returns the three positive shares in the text, or None if it has no three."""
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        return None
    is_whole = len(shares) == 3 and min(shares) > 0 and abs(sum(shares) - 1) < 1e-6
    return shares if is_whole else None


def class_split() -> Rule:
    """Returns the rule of shares of train, val and test, or a JSON file, or ""."""

    def accepts(value: str) -> bool:
        is_file = value.lower().endswith(".json") and path().accepts(value)
        return not value or is_file or shares_in(value) is not None

    expected = "three shares that sum to 1, such as 0.64,0.16,0.2, or the path of a "
    return Rule(str, f"{expected}.json file", accepts)


def read_parameters(value: str, where: str) -> str:
    """Returns a JSON object in one line, from `value` itself or from its file.

    The configuration keeps the content, so later changes of the file do not matter.

    Raises:
      FlagError: if it is not a JSON object; it begins with `where`.
    """
    if not value or value.startswith("{"):
        return parameters_in(value, where)
    expected = "a JSON file of an object: a field for each parameter"
    try:
        found = read_json(pathlib.Path(value))
    except (OSError, ValueError) as error:
        raise FlagError(where, expected, quoted(str(error))) from error
    if not isinstance(found, dict):
        raise FlagError(where, expected, _described(found))
    return json.dumps(found, sort_keys=True)


def parameters_in(text: str, where: str, error: type[LeoError] = FlagError) -> str:
    """Returns the JSON object in `text` in one line, or "". Reads no file.

    Raises:
      error: if it is not a JSON object; it begins with `where`.
    """
    if not text:
        return ""
    expected = "a JSON object: a field for each parameter"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(where, expected, quoted(str(problem))) from problem
    if not isinstance(found, dict):
        raise error(where, expected, _described(found))
    return json.dumps(found, sort_keys=True)


def _is_span(value: str) -> bool:
    match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value, re.ASCII)
    return match is not None and 1 <= int(match[1]) <= int(match[2])


def is_method_name(value: str) -> bool:
    """Tells whether text has the form of a method's name.

    The forms are NAME, package.module:Class and sklearn:package.module.Class.
    """
    module, colon, name = value.rpartition(":")
    if module == "sklearn":
        return all(map(str.isidentifier, name.split(".")))
    return all(map(str.isidentifier, [*(module.split(".") if colon else ()), name]))


def is_file_name(value: str) -> bool:
    """Tells whether text can be one part of a path and stay below it."""
    tricks = value == "." or any(trick in value for trick in ("/", "\\", ".."))
    return bool(value) and value.isprintable() and value == value.strip() and not tricks


def setting(default: Any, help_text: str, rule: Rule, symbol: str = "") -> Any:
    """Returns a dataclass field with its help, rule and symbol in the paper."""
    metadata = {"help": help_text, "rule": rule, "symbol": symbol}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of frozen dataclasses made of `setting`s. Checks each field.

    Raises:
      FlagError: for the first field whose value its rule refuses.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = field.metadata["rule"].checked(value, f"--{field.name}")
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_dict(cls: type[_S], values: Any, source: str, group: str) -> _S:
        """Returns the settings in a JSON object, with defaults for missing ones.

        Raises:
          InputError: if `values` is not an object, or has an unknown or a bad field;
            it names the file `source` and its field `group`.
        """
        rules = {f.name: f.metadata["rule"] for f in dataclasses.fields(cls)}
        check_object(values, rules, f"{source}: `{group}`")
        for name, value in values.items():
            rules[name].checked(value, f"{source}: `{group}.{name}`", InputError)
        return cls(**values)


def check_object(values: Any, known: Collection[str], source: str) -> None:
    """Raises an InputError unless `values` is a dict with keys among `known`."""
    if not isinstance(values, dict):
        raise InputError(source, "an object with named fields", _described(values))
    for name in values:
        if name not in known:
            raise InputError(source, f"fields among {', '.join(known)}", quoted(name))
