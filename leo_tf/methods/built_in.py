"""Registry entries of this package: LEO, its ablations, and other methods.

They are in the order of the paper's table 2, after methods that it lacks.
"""

import dataclasses
import functools
import importlib
from collections.abc import Mapping

from leo_tf.configs.schema import ModelConfig
from leo_tf.methods.method import Method

# The six names that the original release tuned, and from where to where: its own four
# settings (`configs/presets.py`), widened to features that need more, or less, of them.
_LEO_RANGES = {
    "outer_lr": (1e-4, 3e-3),
    "l2_penalty_weight": (1e-10, 1e-6),
    "orthogonality_penalty_weight": (1e-3, 1.0),
    "dropout_rate": (0.1, 0.7),
    "kl_weight": (1e-3, 3.0),
    "encoder_penalty_weight": (1e-9, 1e-3),
}
# MAML and Meta-SGD have no penalties, but a first inner rate that matters.
_GRADIENT_RANGES = {"outer_lr": (1e-4, 3e-2), "adaptation_lr_init": (0.3, 30.0)}
_untrained = functools.partial(Method, is_trained=False, ranges={})
# Settings that turn LEO into another method are not settings of LEO.
_OTHER_METHODS = ("deterministic", "random_prior")


def without_effect(model: ModelConfig) -> set[str]:
    """Returns the settings of LEO that others leave without effect."""
    idle = set()
    if model.random_prior or model.deterministic:
        idle.add("kl_weight")
    if model.random_prior or not model.inner_unroll_length:
        idle.add("encoder_penalty_weight")
    if not model.inner_unroll_length:
        idle.add("inner_lr_init")
    if not (model.finetuning_unroll_length or model.test_finetuning_steps):
        idle.add("finetuning_lr_init")
    return idle


def _leo(
    title: str,
    description: str,
    step_cost: float = 1.0,
    **pinned,
):
    """Returns LEO's entry with some settings pinned."""

    def make(config, unused_embedding_size):
        from leo_tf.model.leo import LEO

        model = dataclasses.replace(config.model, **pinned)
        dtype = "mixed_bfloat16" if config.run.mixed_precision else config.data.dtype
        return LEO(model, seed=config.run.seed, dtype=dtype)

    model = dataclasses.replace(ModelConfig(), **pinned)
    idle = {*_OTHER_METHODS, *without_effect(model), *pinned}
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    return Method(
        title,
        description,
        make,
        step_cost=step_cost,
        draws="deterministic" not in pinned,
        mixed_precision=True,
        family="leo",
        settings=tuple(name for name in names if name not in idle),
        ranges={n: limits for n, limits in _LEO_RANGES.items() if n not in idle},
    )


def _maml(title: str, description: str, name: str) -> Method:
    def make(config, unused_embedding_size):
        from leo_tf.methods.inductive.maml import MAML

        options = {"learned_rates": name == "meta_sgd", "dtype": config.data.dtype}
        return MAML(int(config.episodes.way), config.methods, name=name, **options)

    return Method(
        title,
        description,
        make,
        step_cost=0.2,
        keeps_way=True,
        settings=("adaptation_steps", "adaptation_lr_init", "first_order"),
        ranges=_GRADIENT_RANGES,
    )


def _learned_head(title: str, description: str, module: str, name: str) -> Method:
    def make(config, unused_embedding_size):
        found = importlib.import_module(f"leo_tf.methods.inductive.{module}")
        return getattr(found, name)(name=module, dtype=config.data.dtype)

    return Method(
        title, description, make, step_cost=0.4 if name == "ProtoNet" else 0.2
    )


def _regression(title: str, description: str, fit: str) -> Method:
    strength = f"{fit}_strength"

    def make(config, unused_embedding_size):
        from leo_tf.methods.inductive import linear

        settings = config.methods
        numbers = getattr(settings, strength), settings.score_scale
        return linear.LinearRegression(getattr(linear, fit), *numbers)

    return _untrained(title, description, make, chosen=(strength, "score_scale"))


def _make_distribution_calibration(config, unused_embedding_size, classes):
    from leo_tf.methods.inductive import distribution_calibration as module

    given = config.methods, classes, config.data.dtype
    return module.DistributionCalibration(*given)


def _centroid(title: str, description: str, metric: str, transform: str = "") -> Method:
    def make(config, unused_embedding_size):
        from leo_tf.methods.inductive.nearest_centroid import NearestCentroid

        return NearestCentroid(metric, config.methods.score_scale)

    chosen = ("score_scale",)
    return _untrained(
        title, description, make, chosen=chosen, feature_transform=transform
    )


def _transductive(
    title: str, description: str, module: str, name: str, *numbers: str
) -> Method:
    numbers = (*numbers, "score_scale")

    def make(config, unused_embedding_size):
        found = importlib.import_module(f"leo_tf.methods.query_aware.{module}")
        return getattr(found, name)(*(config.flat()[n] for n in numbers))

    return _untrained(
        title,
        description,
        make,
        query_aware=True,
        transductive=True,
        chosen=numbers,
    )


BUILT_IN: Mapping[str, Method] = {
    "centroid": _centroid(
        "Nearest centroid", "the class whose mean has the largest cosine", "cosine"
    ),
    "centroid_euclidean": _centroid(
        "Nearest centroid (Euclidean)", "the class whose mean is nearest", "euclidean"
    ),
    "simpleshot": _centroid(
        "SimpleShot",
        "the class whose mean is nearest, of centred features",
        "euclidean",
        "center",
    ),
    "lda": _centroid(
        "LDA + nearest centroid",
        "nearest centroid on linear discriminants of the training classes",
        "cosine",
        "lda",
    ),
    "ridge": _regression(
        "Ridge regression",
        "least squares onto one-hot labels, on the support alone",
        "ridge",
    ),
    "logistic": _regression(
        "Logistic regression",
        "softmax regression to convergence, on the support alone",
        "logistic",
    ),
    "distribution_calibration": _untrained(
        "Distribution calibration",
        "logistic regression with samples drawn like the nearest training classes",
        _make_distribution_calibration,
        knows_classes=True,
        chosen=("logistic_strength", "score_scale"),
        settings=("calibration_classes", "calibration_alpha", "calibration_samples"),
    ),
    "soft_kmeans": _transductive(
        "Soft k-means",
        "nearest mean, refined by soft assignments of the queries",
        "soft_kmeans",
        "SoftKMeans",
        "assignment_sharpness",
    ),
    "bd_cspn": _transductive(
        "BD-CSPN",
        "nearest mean by cosine, rectified by confident queries",
        "bd_cspn",
        "BDCSPN",
    ),
    "laplacian_shot": _transductive(
        "LaplacianShot",
        "nearest rectified mean, equal for neighbouring queries",
        "laplacian_shot",
        "LaplacianShot",
        "laplacian_weight",
    ),
    "pt_map": _transductive(
        "PT-MAP",
        "means moved by optimal transport, equally many queries each",
        "pt_map",
        "PTMAP",
    ),
    "protonet": _learned_head(
        "Prototypical network",
        "nearest centroid after a learned linear map",
        "protonet",
        "ProtoNet",
    ),
    "r2d2": _learned_head(
        "R2-D2", "ridge regression with a learned penalty and scale", "r2d2", "R2D2"
    ),
    "maml": _maml(
        "MAML", "gradient steps on a linear head from a learned start", "maml"
    ),
    "meta_sgd": _maml(
        "Meta-SGD", "MAML with a learned rate for every parameter", "meta_sgd"
    ),
    "generator": _leo(
        "Conditional generator only",
        "LEO without any step: the classifier as first decoded",
        step_cost=0.4,
        inner_unroll_length=0,
        finetuning_unroll_length=0,
        test_finetuning_steps=None,
    ),
    "generator_finetuning": _leo(
        "Conditional generator + fine-tuning",
        "LEO without steps in latent space",
        inner_unroll_length=0,
    ),
    "leo_random_prior": _leo(
        "LEO (random prior)",
        "LEO without encoder: latents start as draws from N(0, 1)",
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
        test_finetuning_steps=None,
    ),
    "leo": _leo("LEO", "Latent Embedding Optimization, as configured"),
}
