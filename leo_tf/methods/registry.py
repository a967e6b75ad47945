"""The registry: methods by name, of this package, of users and of other packages.

It does not import TensorFlow, because the command line looks up names before that is
loaded. A method is imported when it is built.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from leo_tf.configs.rules import is_method_name
from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.environment import import_users
from leo_tf.errors import FlagError, LeoError, check_not_forked, quoted
from leo_tf.methods.built_in import BUILT_IN, without_effect
from leo_tf.methods.method import Method, as_method

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from leo_tf.methods.ensemble import Mix
    from leo_tf.methods.transforms import Transform
    from leo_tf.model.learner import Learner

_GROUP = "leo_tf.methods"  # group of entry points
_SKLEARN = "sklearn:"
_OF_TRAINING = {"num_steps", "validate_every", "patience", "log_every", "jit"}
_OF_TRAINING |= {"meta_batch_size", "non_finite_limit", "keep_checkpoints"}
_OF_TRAINING |= {name for name, group in GROUP_OF.items() if group == "optimizer"}
_methods = dict(BUILT_IN)
METHODS: Mapping[str, Method] = MappingProxyType(_methods)


def register_method(
    name: str,
    method: Method | Callable[[Config, int], "Learner"],
    *,
    replace: bool = False,
) -> None:
    """Adds a method under its name, for this process.

    Args:
      name: for `--method`, directories and files; an identifier of Python.
      method: a class, or function, that makes a `Learner` when called with a
        configuration and D. It may have attributes named as those of `Method`:
        `title`, `is_trained`, `settings` and so on. Or a `Method`.
      replace: replace a method that was registered under this name.

    Raises:
      FlagError: if the name is taken or not an identifier, or the method is invalid.
    """
    where = f"method {quoted(name)}"
    if not isinstance(name, str) or not name.isidentifier():
        raise FlagError(where, "a name of letters, digits and _", quoted(name))
    if name in BUILT_IN or (name in _methods and not replace):
        hint = "Choose another, or replace a registered one with `replace=True`."
        raise FlagError(where, "a name that is not taken", "one of `METHODS`", hint)
    _methods[name] = as_method(method, where)


def method_named(name: str) -> Method:
    """Returns the method of a name.

    The name is one of `METHODS`, an entry point of the group "leo_tf.methods" of an
    installed package, or package.module:Class. The last two are imported, and may name
    anything that `register_method` accepts. Or the name is "sklearn:" followed by a
    classifier with scikit-learn's conventions.

    Raises:
      FlagError: if there is no method of this name.
    """
    if name in METHODS:
        return METHODS[name]
    point, where = _entry_point(name), f"--method={quoted(name)[1:-1]}"
    if point is not None and name.startswith(_SKLEARN):
        from leo_tf.methods.query_aware.estimators import method_for

        return method_for(name.removeprefix(_SKLEARN), where)
    if point is None:
        expected = f"one of {', '.join(METHODS)}, package.module:Class"
        expected += f" or {_SKLEARN}package.module.Class"
        hint = "`register_method` adds a name in the process that calls it: for worker "
        hint += "processes, name the class, or use jobs=0."
        raise FlagError("--method", expected, quoted(name), hint)
    try:
        module = import_users(point.module)
    except Exception as error:  # the user's module may raise anything
        received = f"{type(error).__name__}: {error}"
        hint = f"It was raised by the import of {point.module}."
        missing = error.name if isinstance(error, ImportError) else None
        if missing and f"{point.module}.".startswith(f"{missing}."):
            received = f"no module {missing}"
            hint = "Python searches this directory, and those of PYTHONPATH."
        expected = f"the importable module {point.module}"
        raise FlagError(where, expected, received, hint) from error
    try:
        found = functools.reduce(getattr, point.attr.split("."), module)
    except AttributeError as error:
        expected = f"a class of the module {point.module}"
        received = f"no {quoted(point.attr)} in {module.__file__}"
        raise FlagError(where, expected, received) from error
    return as_method(found, where)


def with_transform(config: Config) -> Config:
    """Returns `config` with the feature transform that its method requires.

    Raises a FlagError if the configuration has another one: the method would differ.
    """
    own, given = method_of(config).feature_transform, config.features.feature_transform
    if not own:
        return config
    if given not in ("none", own):
        hint = "--method=centroid accepts any transform."
        expected = f"{own}, which is part of {config.methods.method}"
        raise FlagError("--feature_transform", expected, given, hint)
    return config.replace(feature_transform=own)


def unused(config: Config, given: Iterable[str], methods: Iterable[str]) -> list[str]:
    """Returns those of the `given` settings that have no effect on these methods.

    They may be settings of methods and of training. Methods of users may read any.
    """
    used = {"method", "ensemble", "ensemble_share"}
    for name in {*methods, config.methods.ensemble} - {"none"}:
        if (method := METHODS.get(name)) is None or method not in BUILT_IN.values():
            return []
        own = {*method.settings, *method.chosen}
        if method.family == "leo":
            own |= {"deterministic", "random_prior"}
            own -= without_effect(config.model)
        used |= own
        used |= _OF_TRAINING if method.is_trained else set()
    if config.data.train_on_val:
        used.discard("patience")  # every validation counts as the best
    of_methods = {n for n, group in GROUP_OF.items() if group in ("model", "methods")}
    return [name for name in given if name in (of_methods | _OF_TRAINING) - used]


def is_known(name: str) -> bool:
    """Tells whether `method_named` would find a method, or must import it to know."""
    return name in METHODS or _entry_point(name) is not None


def method_of(config: Config) -> Method:
    """Returns the method of a configuration."""
    return method_named(config.methods.method)


def _entry_point(name: str) -> "EntryPoint | None":
    from importlib.metadata import EntryPoint, entry_points

    if not is_method_name(name):
        return None
    if ":" in name:
        return EntryPoint(name, name, _GROUP)
    return next(iter(entry_points(group=_GROUP, name=name)), None)


def draws(config: Config) -> bool:
    """Tells whether a run's method draws latents or weights."""
    return method_of(config).draws and not config.model.deterministic


def is_fitted(config: Config) -> bool:
    """Tells whether a run fits a `Transform` to the training classes first."""
    kind = config.features.feature_transform
    return kind != "none" or method_of(config).knows_classes


def build(
    config: Config, embedding_size: int, transform: "Transform | None" = None
) -> "Learner":
    """Builds the method of a configuration for features of size D.

    With a feature transform the result is the method on transformed features.

    Raises:
      FlagError: if it does not support the test's way, a setting must be tuned first,
        or the result is not a learner.
    """
    check(config)
    method, given = method_of(config), config.flat()
    for name in method.chosen:
        if given[name] is None:
            hint = "`validation_tuning.choose` finds one on the validation episodes."
            raise FlagError(f"--{name}", "a number above 0", "nothing", hint)
    if method.knows_classes and (transform is None or not transform.centres.size):
        hint = "`validation_tuning.fit_transform` has them."
        expected = "statistics of the training classes"
        raise FlagError(f"method {method.title}", expected, "none", hint)
    size = embedding_size if transform is None else transform.output_size
    learner = _made(method, config, size, transform)
    if method not in BUILT_IN.values():
        _check_learner(learner, _made(method, config, size, transform), method)
    if transform is None:
        return learner
    from leo_tf.methods.transformed import Transformed

    return Transformed(learner, transform)


def other_config(config: Config) -> Config:
    """Returns the configuration of an ensemble's closed form.

    Products in bfloat16 and draws are left to the trained method.
    """
    alone = {"ensemble": "none", "ensemble_share": None}
    config = config.replace(mixed_precision=False, test_samples=0)
    return config.replace(method=config.methods.ensemble, **alone)


def ensemble(
    learner: "Learner",
    config: Config,
    mix: "Mix",
    embedding_size: int,
    transform: "Transform | None" = None,
) -> "Learner":
    """Builds the ensemble of a method and the configured closed form."""
    from leo_tf.methods.ensemble import together, without_other

    size = embedding_size if transform is None else transform.output_size
    option = other_config(config).replace(**mix.settings)
    other = _made(method_of(option), option, size)
    biased = option.methods.method != "centroid"
    return together(without_other(learner), other, size + biased, mix)


def _made(method: Method, config: Config, embedding_size: int, *classes) -> "Learner":
    check_not_forked()
    classes = classes if method.knows_classes else ()
    try:
        learner: Any = method.make(config, embedding_size, *classes)
        if not getattr(learner, "built", True):  # a Keras layer
            learner.build([None, None, None, embedding_size])
    except Exception as error:  # the user's class may raise anything
        if method in BUILT_IN.values() or isinstance(error, LeoError):
            raise
        received, hint = f"{type(error).__name__}: {error}", "--debug shows where."
        expected = "a learner, when called with a configuration and the features' size"
        where = f"method {method.title}"
        raise FlagError(where, expected, quoted(received), hint) from error
    return learner


def _check_learner(learner, again, method: Method) -> None:
    """Refuses learners that would fail during a run or after it."""
    where = f"method {method.title}"
    does = ("answer",) if method.query_aware else ("adapt", "logits", "draw_noise")
    parts = *does, "kernels", "trainable_variables"
    missing = [part for part in parts if not hasattr(learner, part)]
    if missing:
        received = f"{type(learner).__name__} without {', '.join(missing)}"
        hint = "A subclass of leo_tf.model.learner.Learner has all but `adapt`."
        raise FlagError(where, "a learner", received, hint)
    names, others = ([v.path for v in m.trainable_variables] for m in (learner, again))
    if names != others:
        expected = "variables of the same names whenever it is made"
        received = f"{', '.join(names)}, then {', '.join(others)}"
        hint = 'Keras numbers layers without a name: give each `name="..."`.'
        raise FlagError(where, expected, received, hint)
    if method.is_trained != bool(names):
        expected = f"{'some' if method.is_trained else 'no'} variables to train"
        hint = (
            "A keras.layers.Layer finds its own; `is_trained = False` says it has none."
        )
        raise FlagError(where, expected, f"{len(names)}", hint)


def check_is_config(config: object) -> None:
    """Raises a FlagError unless the value is a `Config`."""
    if not isinstance(config, Config):
        hint = 'PRESETS["glyphs"].config() makes one.'
        raise FlagError("`config`", "a Config", f"a {type(config).__name__}", hint)


def check(config: Config) -> None:
    """Checks, without loading data, that the method supports the configuration.

    Raises:
      FlagError: if it does not, or there is no such method.
    """
    check_is_config(config)
    method, episodes = method_of(config), config.episodes
    if method.keeps_way and isinstance(episodes.way, str):
        expected = f"one number, because {method.title} has a fixed way"
        raise FlagError("--way", expected, episodes.way)
    if method.keeps_way and episodes.evaluation_way != episodes.way:
        hint = (
            f"{method.title} learns initial parameters for each class, so the "
            "number of classes is fixed."
        )
        expected, received = f"{episodes.way}, as --way", str(episodes.evaluation_way)
        raise FlagError("--test_way", expected, received, hint)
    if config.run.mixed_precision and config.data.dtype != "float32":
        expected = "--dtype=float32, because it turns float32 into bfloat16"
        raise FlagError("--mixed_precision", expected, f"--dtype={config.data.dtype}")
    if config.run.mixed_precision and not method.mixed_precision:
        expected = "LEO or one of its ablations"
        raise FlagError("--mixed_precision", expected, config.methods.method)
    _check_features(config)
    if config.methods.ensemble != "none":
        where = "--ensemble"
        expected = "none with --train_on_val: its share is tuned on validation classes"
        if not method.is_trained:
            expected = f"none with {config.methods.method}, which is not trained"
        if config.data.train_on_val or not method.is_trained:
            raise FlagError(where, expected, config.methods.ensemble)
    elif config.methods.ensemble_share is not None:
        received = f"{config.methods.ensemble_share:g}"
        raise FlagError("--ensemble_share", "none without --ensemble", received)
    if config.run.test_samples and not draws(config):
        drawing = ", ".join(name for name, each in METHODS.items() if each.draws)
        received = f"{config.run.test_samples} for {config.methods.method}"
        hint = f"Those that draw are {drawing}, without --deterministic."
        raise FlagError("--test_samples", "a method that draws", received, hint)


def _check_features(config: Config) -> None:
    """Refuses settings of a feature transform that have no effect."""
    config = with_transform(config)
    features, given, defaults = config.features, config.flat(), Config().flat()
    kind, method = features.feature_transform, config.methods.method
    for name in features.unused:
        if given[name] != defaults[name]:
            is_power = name == "feature_power"
            usual = "1" if is_power else "none"
            expected = f"{usual} with --feature_transform={kind}, as {method} has"
            mildest = "Use --feature_transform=center, which changes little else."
            hint = mildest if is_power else ""
            raise FlagError(f"--{name}", expected, f"{given[name]:g}", hint)
    if kind != "none" and config.run.strategy == "multi_worker":
        expected = "none with --strategy=multi_worker, whose machines would each fit it"
        raise FlagError("--feature_transform", expected, kind)
