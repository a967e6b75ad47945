"""The registry entry of a method: everything known of it but its arithmetic."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from leo_tf.configs.schema import GROUP_OF
from leo_tf.errors import FlagError, shown

if TYPE_CHECKING:  # it imports TensorFlow
    from leo_tf.model.learner import Learner


@dataclasses.dataclass(frozen=True)
class Method:
    """A registered method.

    Raises:
      FlagError: if one of the settings is none.
    """

    title: str  # in tables; the paper's, if it is in the paper's table 2
    description: str  # one line
    # (configuration, D) -> learner; a layer of Keras need not be built. If it
    # `knows_classes`, there is a third argument, the `transforms.Transform`.
    make: Callable[..., "Learner"]
    is_trained: bool = True  # whether it has variables for meta-steps to change
    keeps_way: bool = False  # whether it answers no way but that of its training
    query_aware: bool = False  # whether it has `answer`: see `learner.QueryAware`
    transductive: bool = False  # whether it learns from a task's queries, too
    knows_classes: bool = (
        False  # whether it is made of the training classes' statistics
    )
    draws: bool = False  # whether a test can average predictions over draws
    mixed_precision: bool = False  # whether it can compute in bfloat16
    chosen: tuple[str, ...] = ()  # what `validation_tuning.choose` finds, if not given
    feature_transform: str = ""  # what it does to features first, if it is made of that
    family: str = ""  # the method it is a variant of, whose settings suit it
    # All that make a difference to it, but for the optimizer's, and those of data and
    # episodes, which are the same for all methods.
    settings: tuple[str, ...] = ()
    # Setting -> (low, high), from where to where a search draws it.
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=lambda: {"outer_lr": (1e-4, 3e-2)}
    )

    def __post_init__(self) -> None:
        for name in (*self.chosen, *self.settings, *self.ranges):
            if name not in GROUP_OF:
                expected = "settings of leo_tf.configs.schema"
                raise FlagError(f"method {self.title}", expected, shown(name))


def as_method(found: Any, where: str) -> Method:
    """Returns the entry of a user's method; see `registry.register_method`.

    Raises:
      FlagError: beginning with `where`, if it is no such thing.
    """
    if isinstance(found, Method):
        return found
    if not callable(found):
        expected = "a class to call with a configuration and the embeddings' size"
        raise FlagError(where, expected, f"a value of type {type(found).__name__}")
    name = getattr(found, "__name__", type(found).__name__)
    line = (found.__doc__ or name).strip().partition("\n")[0]
    known = {"title": name, "description": line}
    for field in dataclasses.fields(Method):
        # What Python computes for an object, as by a property, is not of the class.
        if not isinstance(own := getattr(found, field.name, None), property | None):
            known[field.name] = own
    return Method(**{**known, "make": found})
