"""The registry entry of a method: everything known of it but its arithmetic."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from leo_tf.configs.schema import GROUP_OF
from leo_tf.errors import FlagError, quoted

if TYPE_CHECKING:  # imports TensorFlow
    from leo_tf.model.learner import Learner


@dataclasses.dataclass(frozen=True)
class Method:
    """A registered method.

    Raises:
      FlagError: if `chosen`, `settings` or `ranges` names an unknown setting.
    """

    title: str  # name in tables, as in table 2 of the paper
    description: str  # one line of text
    # (configuration, D) -> learner; a layer of Keras need not be built. If it
    # `knows_classes`, there is a third argument, the `transforms.Transform`.
    make: Callable[..., "Learner"]
    is_trained: bool = True  # has variables that meta-steps change
    step_cost: float = 1.0  # time of a meta-step over LEO's, roughly, for forecasts
    keeps_way: bool = False  # supports only the way of its training
    query_aware: bool = False  # has `answer`; see `learner.QueryAware`
    transductive: bool = False  # also learns from a task's queries
    knows_classes: bool = False  # needs the training classes' statistics
    draws: bool = False  # a test can average predictions over draws
    mixed_precision: bool = False  # can compute in bfloat16
    chosen: tuple[str, ...] = ()  # settings that `validation_tuning.choose` tunes
    feature_transform: str = ""  # transform that is part of the method
    family: str = ""  # method whose variant it is, with suitable settings
    # All that make a difference to it, but for the optimizer's, and those of data and
    # episodes, which are the same for all methods.
    settings: tuple[str, ...] = ()
    # Setting -> (low, high) of the range that a search draws from.
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=lambda: {"outer_lr": (1e-4, 3e-2)}
    )

    def __post_init__(self) -> None:
        for name in (*self.chosen, *self.settings, *self.ranges):
            if name not in GROUP_OF:
                expected = "settings of leo_tf.configs.schema"
                raise FlagError(f"method {self.title}", expected, quoted(name))


def as_method(found: Any, where: str) -> Method:
    """Returns the entry of a user's method; see `registry.register_method`.

    Raises:
      FlagError: beginning with `where`, if `found` is not a method.
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
        # A property is computed per object, so it is no value of the class.
        if not isinstance(own := getattr(found, field.name, None), property | None):
            known[field.name] = own
    for name in ("title", "description"):
        if not isinstance(known[name], str):
            raise FlagError(f"{where}: `{name}`", "text", quoted(known[name]))
    return Method(**{**known, "make": found})
