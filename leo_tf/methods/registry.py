"""Every method of this package by its name: what it is, and how it is made.

Names are in the order of the paper's table 2, with what it lacks before.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.methods.linear import LinearRegression, logistic, ridge
from leo_tf.methods.maml import MAML
from leo_tf.methods.nearest_centroid import NearestCentroid
from leo_tf.model.learner import Learner
from leo_tf.model.leo import LEO


@dataclasses.dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
      title: its name in tables; the paper's, if it is in the paper's table 2.
      description: one line.
      make: (configuration, D) -> built learner.
      is_trained: whether it has variables for meta-steps to change.
      keeps_way: whether it answers episodes of the way it was trained for only.
      draws: whether its predictions can be averaged over draws in a test.
      chosen: the settings that `choices.choose` finds if they are not given.
      family: the method it is a variant of, whose settings suit it; or "".
    """

    title: str
    description: str
    make: Callable[[Config, int], Learner]
    is_trained: bool = True
    keeps_way: bool = False
    draws: bool = False
    chosen: tuple[str, ...] = ()
    family: str = ""


def build(config: Config, embedding_size: int) -> Learner:
    """The method a configuration names, with its initial variables.

    Args:
      config: `config.methods.method` says which.
      embedding_size: D.

    Raises:
      FlagError: if it cannot answer the test's way, or a setting must be chosen first.
    """
    check(config)
    method, given = METHODS[config.methods.method], config.flat()
    for name in method.chosen:
        if given[name] is None:
            hint = "`validation_tuning.choose` finds one on the validation episodes."
            raise FlagError(f"--{name}", "a number above 0", "nothing", hint)
    return method.make(config, embedding_size)


def check(config: Config) -> None:
    """Sees that a method can do what a configuration asks of it, without any data.

    Raises:
      FlagError: if it cannot.
    """
    method, episodes = METHODS[config.methods.method], config.episodes
    if method.keeps_way and episodes.evaluation_way != episodes.way:
        raise FlagError(
            "--test_way",
            f"{episodes.way}, as --way",
            str(episodes.evaluation_way),
            f"{method.title} learns where each class of an episode starts from, so "
            "there is no start for another number of them.",
        )
    if config.run.mixed_precision:
        _check_mixed_precision(config)
    draws = method.draws and not config.model.deterministic
    if config.run.test_samples and not draws:
        drawing = ", ".join(name for name, each in METHODS.items() if each.draws)
        received = f"{config.run.test_samples} for {config.methods.method}"
        hint = f"Those that draw are {drawing}, without --deterministic."
        raise FlagError("--test_samples", "a method that draws", received, hint)


def _check_mixed_precision(config: Config):
    if config.data.dtype != "float32":
        expected = "--dtype=float32: it takes the products from there to bfloat16"
        raise FlagError("--mixed_precision", expected, f"--dtype={config.data.dtype}")
    if not config.methods.method.startswith(("leo", "generator")):
        expected = "LEO or one of its ablations, which are made of products"
        raise FlagError("--mixed_precision", expected, config.methods.method)


def _leo(title: str, description: str, **settings) -> Method:
    """LEO with some of its settings pinned."""

    def make(config, embedding_size):
        model = dataclasses.replace(config.model, **settings)
        dtype = "mixed_bfloat16" if config.run.mixed_precision else config.data.dtype
        leo = LEO(model, seed=config.run.seed, dtype=dtype)
        leo.build([None, None, None, embedding_size])
        return leo

    draws = not settings.get("deterministic", False)
    return Method(title, description, make, draws=draws, family="leo")


def _maml(title: str, description: str, name: str, learned_rates: bool) -> Method:
    def make(config, embedding_size):
        maml = MAML(
            config.episodes.way,
            config.methods,
            learned_rates,
            name=name,
            dtype=config.data.dtype,
        )
        maml.build([None, None, None, embedding_size])
        return maml

    return Method(title, description, make, keeps_way=True)


def _regression(title: str, description: str, fit, strength: str) -> Method:
    def make(config, unused_embedding_size):
        settings = config.methods
        return LinearRegression(fit, getattr(settings, strength), settings.score_scale)

    chosen = (strength, "score_scale")
    return Method(title, description, make, is_trained=False, chosen=chosen)


def _centroid(title: str, description: str, metric: str) -> Method:
    def make(config, unused_embedding_size):
        return NearestCentroid(metric, config.methods.score_scale)

    return Method(title, description, make, is_trained=False, chosen=("score_scale",))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "centroid": _centroid(
            "Nearest centroid", "the class whose mean has the largest cosine", "cosine"
        ),
        "centroid_euclidean": _centroid(
            "Nearest centroid (Euclidean)",
            "the class whose mean is nearest",
            "euclidean",
        ),
        "ridge": _regression(
            "Ridge regression",
            "least squares onto one-hot labels, on the support alone",
            ridge,
            "ridge_strength",
        ),
        "logistic": _regression(
            "Logistic regression",
            "softmax regression to convergence, on the support alone",
            logistic,
            "logistic_strength",
        ),
        "maml": _maml(
            "MAML",
            "gradient steps on a linear head from a learned start",
            "maml",
            learned_rates=False,
        ),
        "meta_sgd": _maml(
            "Meta-SGD",
            "MAML with a learned rate for every parameter",
            "meta_sgd",
            learned_rates=True,
        ),
        "generator": _leo(
            "Conditional generator only",
            "LEO without any step: the classifier as first decoded",
            inner_unroll_length=0,
            finetuning_unroll_length=0,
        ),
        "generator_finetuning": _leo(
            "Conditional generator + fine-tuning",
            "LEO without steps in latent space",
            inner_unroll_length=0,
        ),
        "leo_random_prior": _leo(
            "LEO (random prior)",
            "LEO without encoder: latents begin as draws from N(0, 1)",
            random_prior=True,
        ),
        "leo_deterministic": _leo(
            "LEO (deterministic)",
            "LEO trained on the means of latents and weights, without KL",
            deterministic=True,
        ),
        "leo_no_finetuning": _leo(
            "LEO (no fine-tuning)",
            "LEO with steps in latent space only",
            finetuning_unroll_length=0,
        ),
        "leo": _leo("LEO", "Latent Embedding Optimization, as configured"),
    }
)
