"""Variants METHOD@TRANSFORM: methods on a feature transform of their own.

Only this module reads and writes such names. It imports neither TensorFlow nor any
method, because the command line looks up names first.
"""

from collections.abc import Iterable
from typing import NamedTuple

from leo_tf.configs.settings import TRANSFORMS
from leo_tf.errors import FlagError, quoted
from leo_tf.methods import registry
from leo_tf.methods.method import Method
from leo_tf.methods.registry import METHODS

_MARK = "@"


class Variant(NamedTuple):
    """A method on a feature transform, as comparisons and searches name it."""

    method: str
    transform: str = ""  # its own transform; "" for the shared one

    @property
    def entry(self) -> Method:
        """Registry entry of the method. Raises a FlagError if there is none."""
        return registry.method_named(self.method)

    @property
    def title(self) -> str:
        """Name in tables: "Ridge regression, soft"."""
        title = self.entry.title
        return f"{title}, {self.transform}" if self.transform else title

    @property
    def settings(self) -> dict[str, str]:
        """Settings that replace those shared by all."""
        transform = self.transform or self.entry.feature_transform
        own = {"feature_transform": transform} if transform else {}
        return {"method": self.method, **own}


def method_part(name: str) -> str:
    """Returns METHOD of METHOD@TRANSFORM, known or not."""
    return name.partition(_MARK)[0]


def variant_named(name: str) -> Variant:
    """Returns the variant that METHOD or METHOD@TRANSFORM names.

    Raises:
      FlagError: if there is no such transform, or the method has one of its own. An
        unknown method is an error only when it is used.
    """
    if not isinstance(name, str):
        raise FlagError("`methods`", 'names: ["leo", "ridge@soft"]', repr(name))
    method, mark, transform = name.partition(_MARK)
    where = quoted(name)[1:-1]
    if mark and transform not in TRANSFORMS:
        expected = f"a feature transform after {_MARK}: {', '.join(TRANSFORMS)}"
        raise FlagError(where, expected, quoted(transform))
    own = METHODS[method].feature_transform if method in METHODS else ""
    if mark and own:
        hint = f"Use centroid{_MARK}{transform} instead."
        expected = f"{method} alone, which includes {own}"
        raise FlagError(where, expected, f"{_MARK}{transform}", hint)
    return Variant(method, transform)


def is_known(name: str) -> bool:
    """Tells whether `variant_named` finds something, or must import it to know."""
    try:
        return registry.is_known(variant_named(name).method)
    except FlagError:
        return False


def with_transforms(method: str, transforms: Iterable[str], shared: str) -> list[str]:
    """Returns the names of a method on transforms."""
    others = (t for t in transforms if t != shared)
    return [method, *(f"{method}{_MARK}{transform}" for transform in others)]


def in_table_order(names: Iterable[str]) -> list[str]:
    """Returns names in the order of tables: a method's variants side by side.

    Methods are in the order of `METHODS`, then others.

    Raises:
      FlagError: if there are none, or a text in place of a list of texts.
    """
    if isinstance(names, str) or not (names := list(dict.fromkeys(names))):
        raise FlagError("`methods`", 'names in a list: ["leo", "ridge"]', repr(names))
    variants = {name: variant_named(name) for name in names}
    methods = [*METHODS, *(variant.method for variant in variants.values())]
    transforms = ("", *TRANSFORMS)

    def place(name):
        method, transform = variants[name]
        return methods.index(method), transforms.index(transform)

    return sorted(names, key=place)


def in_running_order(names: Iterable[str]) -> list[str]:
    """Returns names in the order given, but methods without training first."""
    return sorted(names, key=lambda name: variant_named(name).entry.is_trained)
