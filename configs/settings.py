"""The groups of settings: each setting with its default, help and rule.

Settings that the original release has (`config.py`, `runner.py`) keep its defaults, so
that its commands mean here what they meant there. Symbols are those of the paper,
arXiv:1807.05960. The flags of the command line are derived from this file.
"""

import dataclasses
import itertools
import math
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.rules import Rule, Settings, setting
from leo_tf.errors import InputError

EMBEDDED_DATASET = "glyphs"
# Tensor sizes and lengths of unrolled loops are bounded, because a line of config.json
# could otherwise take all memory. The relation network's three kernels have 4 n_z^2
# entries each; the published n_z is 64.
_MOST_LATENTS, _MOST_INNER_STEPS, _MOST_EXAMPLES = 4096, 1000, 65_536
_STEPS = rules.integer(0, _MOST_INNER_STEPS)
_EXAMPLES = rules.integer(1, _MOST_EXAMPLES)
_EXAMPLES_DRAWN, _CLASSES_DRAWN = (
    rules.integer_or_range(least, _MOST_EXAMPLES) for least in (1, 2)
)
_COUNT, _COUNT_OR_ZERO = rules.integer(1), rules.integer(0)
_WEIGHT = Rule(float, "a number of 0 or more", lambda value: value >= 0)
# Below 1, because kept values are divided by 1 - rate.
_RATE = Rule(float, "a number of 0 or more and below 1", lambda rate: 0 <= rate < 1)


# Below 0.01 nearly all queries are of one class; above 1000 classes have equally many.
def _is_concentration(value: float) -> bool:
    return 0.01 <= value <= 1000


_SHARE = Rule(float, "a number from 0 to 1", lambda x: 0 <= x <= 1, optional=True)
_NAME = "a name without /, \\, .., leading or trailing blanks or control characters"
# `methods.registry` resolves the name.
_METHOD = "a name such as leo, package.module:Class or sklearn:package.module.Class"


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Embeddings to read, and their splits."""

    dataset_name: str = setting(
        EMBEDDED_DATASET,
        "Name of the data set to read below --data_path. Without --data_path, glyphs "
        "is the embedded one.",
        Rule(str, _NAME, rules.is_file_name),
    )
    data_path: str = setting(
        "",
        "Directory with a file of features per split, such as train.npz, or in the "
        "release's layout; or one file of all classes.",
        rules.path(),
    )
    embedding_crop: str = setting(
        "center",
        "Crop of the images that were embedded, in the release's layout.",
        rules.choice("center", "multiview"),
    )
    train_on_val: bool = setting(
        False,
        "Train on the validation classes too, as the published numbers do.",
        rules.boolean(),
    )
    val_classes: int = setting(
        0,
        "Number of training classes to move to val, for data without a val split. "
        "Their names decide which ones.",
        _COUNT_OR_ZERO,
    )
    class_split: str = setting(
        "",
        "Shares of the classes for train, val and test, for data without splits, "
        'or a JSON file of {"train": [names], "val": ..., "test": ...}.',
        rules.class_split(),
    )
    class_folds: int = setting(
        0,
        "Number of folds to divide the classes into, instead of --class_split. "
        "--fold is tested and the next one is val. --mode=compare without --fold "
        "tests every fold.",
        Rule(
            int, "0, or an integer from 3 to 1000", lambda n: n == 0 or 3 <= n <= 1000
        ),
    )
    fold: int | None = setting(
        None,
        "Fold of --class_folds to test, counted from 0.",
        rules.integer(0, 999, optional=True),
    )
    split_seed: int = setting(
        0,
        "Seed of the splits by --class_split or --class_folds. --seed does not change "
        "them, so runs of several seeds test on the same classes.",
        _COUNT_OR_ZERO,
    )
    trust_data_files: bool = setting(
        False,
        "Read Parquet and Arrow files too. A malicious file might exploit their C++ "
        "parser: use this only for files from a source you trust.",
        rules.boolean(),
    )
    drop_small_classes: bool = setting(
        False,
        "Leave out classes with too few rows for an episode, and list them.",
        rules.boolean(),
    )
    dtype: str = setting(
        "float32",
        "Floating-point type of the embeddings, the variables and all arithmetic.",
        rules.choice("float32", "float64"),
    )

    @property
    def is_embedded(self) -> bool:
        """True if this package draws the data instead of reading `data_path`."""
        return self.dataset_name == EMBEDDED_DATASET and not self.data_path

    @property
    def shares_classes(self) -> bool:
        """True if the classes of data without splits are divided among them."""
        return bool(self.class_split or self.class_folds)


# Values of `feature_transform`.
TRANSFORMS = ("none", "center", "within", "lda", "soft")


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Settings):
    """Transforms of the features, fitted to the training classes."""

    feature_transform: str = setting(
        "none",
        "Transform of the features, fitted to the training classes: subtract their "
        "mean (center), then whiten the scatter within classes (within), keep the "
        "first linear discriminants (lda), or weight all of them (soft).",
        rules.choice(*TRANSFORMS),
    )
    feature_power: float = setting(
        1.0,
        "Power that all features are raised to before the transform. 0.5 evens out "
        "non-negative features.",
        rules.above_zero(),
    )
    transform_dims: int | None = setting(
        None,
        "Number of discriminants that lda keeps. By default chosen on the validation "
        "episodes; for a trained method from 32, 64, 128 and 256, by training 1,000 "
        "steps with each, or, if --num_steps is below 10,000, 64 at most.",
        rules.integer(1, optional=True),
    )
    transform_shrinkage: float | None = setting(
        None,
        "Shrinkage of the scatter within classes towards a multiple of the identity, "
        "0 to 1. By default chosen on the validation episodes.",
        _SHARE,
    )

    @property
    def chosen(self) -> tuple[str, ...]:
        """Settings of this transform that are chosen on validation unless given."""
        dims = ("transform_dims",) if self.feature_transform == "lda" else ()
        inverts = self.feature_transform in ("within", "lda", "soft")
        return (*dims, "transform_shrinkage") if inverts else ()

    @property
    def unused(self) -> tuple[str, ...]:
        """Settings that make no difference to this transform."""
        power = () if self.feature_transform == "none" else ("feature_power",)
        used = ("feature_transform", *power, *self.chosen)
        return tuple(f.name for f in dataclasses.fields(self) if f.name not in used)


def _middle(value: int | str) -> int:
    """Returns the rounded geometric mean of a range such as "5-20"; 5 for 5."""
    return round(math.sqrt(math.prod(rules.ends(value))))


def _spaced(value: int | str) -> tuple[int, ...]:
    """Returns first, geometric mean and last of a range; of a number, that alone.

    A graph is compiled for each way and shot, so few must represent all.
    """
    return tuple(sorted({*rules.ends(value), _middle(value)}))


@dataclasses.dataclass(frozen=True)
class EpisodeConfig(Settings):
    """Sizes of the few-shot problems."""

    way: int | str = setting(
        5,
        "Classes of an episode. From a range, each training step draws the first, the "
        "last or their geometric mean.",
        _CLASSES_DRAWN,
        "N",
    )
    shot: int | str = setting(
        1,
        "Support examples per class. For ranges, see --way.",
        _EXAMPLES_DRAWN,
        "K",
    )
    num_query: int = setting(15, "Query examples per class in training.", _EXAMPLES)
    meta_batch_size: int = setting(12, "Episodes per training step.", _EXAMPLES)
    test_way: int | None = setting(
        None,
        "Classes of a validation or test episode. Defaults to --way, or to the "
        "geometric mean of its range.",
        rules.integer(2, _MOST_EXAMPLES, optional=True),
    )
    test_shot: int | None = setting(
        None,
        "Support examples per class in a validation or test episode. Defaults to "
        "--shot, or to the geometric mean of its range.",
        rules.integer(1, _MOST_EXAMPLES, optional=True),
    )
    test_num_query: int | None = setting(
        None,
        "Query examples per class in a validation or test episode. By default all "
        "that the smallest class has left, at most 600 including the support.",
        rules.integer(1, _MOST_EXAMPLES, optional=True),
    )
    query_dirichlet: float | None = setting(
        None,
        "Concentration of a Dirichlet distribution that divides the queries of a "
        "validation or test episode among its classes; 2 is usual. By default all "
        "classes have equally many. With it, --test_num_query defaults to --num_query.",
        Rule(float, "a number from 0.01 to 1000", _is_concentration, optional=True),
    )

    @property
    def evaluation_way(self) -> int:
        """Number N of classes in a validation or test episode."""
        return _middle(self.way) if self.test_way is None else self.test_way

    @property
    def evaluation_shot(self) -> int:
        """Number K of examples per class in a validation or test episode."""
        return _middle(self.shot) if self.test_shot is None else self.test_shot

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(N, K) of training episodes: one pair, or all that ranges allow."""
        return tuple(itertools.product(_spaced(self.way), _spaced(self.shot)))


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """LEO itself: sizes, inner loops and the weights of its penalties."""

    num_latents: int = setting(
        64, "Size of a latent code.", rules.integer(1, _MOST_LATENTS), "n_z"
    )
    inner_unroll_length: int = setting(5, "Gradient steps on the latent codes.", _STEPS)
    finetuning_unroll_length: int = setting(
        5, "Gradient steps on the decoded classifier.", _STEPS
    )
    test_finetuning_steps: int | None = setting(
        None,
        "Gradient steps on the decoded classifier in validation, test and exports. "
        "Defaults to --finetuning_unroll_length. Many classes need more.",
        rules.integer(0, _MOST_INNER_STEPS, optional=True),
    )
    inner_lr_init: float | None = setting(
        None,
        "Initial value of the learned rates of the latents. Defaults to 1, or to "
        "sqrt(D / 64) for embeddings of D < 64 numbers.",
        rules.above_zero(optional=True),
        "alpha",
    )
    finetuning_lr_init: float = setting(
        0.001, "Initial value of the learned fine-tuning rates.", rules.above_zero()
    )
    dropout_rate: float = setting(
        0.5, "Share of the embedding's entries dropped in training.", _RATE
    )
    kl_weight: float = setting(
        1e-3, "Weight of the KL of the latent codes.", _WEIGHT, "beta"
    )
    encoder_penalty_weight: float = setting(
        1e-9,
        "Weight of the squared distance between latents before and after adaptation.",
        _WEIGHT,
        "gamma",
    )
    l2_penalty_weight: float = setting(
        1e-8, "Weight of half the sum of squares of the kernels.", _WEIGHT, "lambda_1"
    )
    orthogonality_penalty_weight: float = setting(
        1e-3,
        "Weight of the penalty on correlated rows of the decoder.",
        _WEIGHT,
        "lambda_2",
    )
    deterministic: bool = setting(
        False,
        "Train on the means of latents and weights. Nothing is drawn, so the KL is "
        "dropped.",
        rules.boolean(),
    )
    random_prior: bool = setting(
        False,
        "Start the latents as draws from N(0, 1), independent of the support, without "
        "an encoder.",
        rules.boolean(),
    )
    residual: str = setting(
        "none",
        "Closed form of the support that the decoded classifier is added to. Its scale "
        "is learned. The decoded part is zero at first, so training starts from the "
        "closed form.",
        rules.choice("none", "centroid", "ridge"),
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig(Settings):
    """Method to train, and settings of those that LEO is compared with."""

    method: str = setting(
        "leo", "Method to train and test.", Rule(str, _METHOD, rules.is_method_name)
    )
    adaptation_steps: int = setting(
        5,
        "Gradient steps of MAML and Meta-SGD on the support.",
        rules.integer(1, _MOST_INNER_STEPS),
    )
    adaptation_lr_init: float = setting(
        3.0,
        "Rate of MAML's steps, and initial value of Meta-SGD's learned rates.",
        rules.above_zero(),
        "alpha",
    )
    first_order: bool = setting(
        False,
        "Train MAML and Meta-SGD without second-order gradients.",
        rules.boolean(),
    )
    ridge_strength: float | None = setting(
        None,
        "Weight of ridge regression's penalty. By default chosen on the validation "
        "episodes.",
        rules.above_zero(optional=True),
    )
    logistic_strength: float | None = setting(
        None,
        "Weight of logistic regression's penalty. By default chosen on the validation "
        "episodes.",
        rules.above_zero(optional=True),
    )
    calibration_classes: int = setting(
        2,
        "Distribution calibration: number of training classes whose covariances an "
        "example borrows.",
        _EXAMPLES,
        "k",
    )
    calibration_samples: int = setting(
        100,
        "Distribution calibration: samples drawn per class, divided among its "
        "examples.",
        _EXAMPLES,
    )
    calibration_alpha: float = setting(
        0.1,
        "Distribution calibration: constant added to all variances, in units of "
        "their mean.",
        _WEIGHT,
        "alpha",
    )
    ensemble: str = setting(
        "none",
        "Closed form whose scores are added to those of a trained method.",
        rules.choice("none", "centroid", "centroid_euclidean", "ridge", "logistic"),
    )
    ensemble_share: float | None = setting(
        None,
        "Weight of the closed form, 0 to 1. By default chosen on the validation "
        "episodes after training.",
        _SHARE,
    )
    assignment_sharpness: float | None = setting(
        None,
        "Soft k-means: factor of the squared distances in the softmax that assigns "
        "queries. By default chosen on the validation episodes.",
        rules.above_zero(optional=True),
    )
    laplacian_weight: float | None = setting(
        None,
        "LaplacianShot: weight of a query's neighbours. By default chosen on the "
        "validation episodes.",
        rules.above_zero(optional=True),
        "lambda",
    )
    sklearn_parameters: str = setting(
        "",
        "JSON file of constructor parameters for --method=sklearn:CLASS. The run "
        "keeps a copy of its content.",
        dataclasses.replace(rules.path(), expected="the path of a JSON file"),
    )
    score_scale: float | None = setting(
        None,
        "Factor of the scores of methods without training; it decides how confident "
        "they are. By default chosen on the validation episodes.",
        rules.above_zero(optional=True),
    )

    @classmethod
    def from_dict(cls, values: Any, source: str, group: str) -> "MethodConfig":
        """Like `Settings.from_dict`, but refuses a path in place of parameters."""
        name = "sklearn_parameters"
        if isinstance(values, dict) and isinstance(values.get(name), str):
            where = f"{source}: `{group}.{name}`"
            found = rules.parameters_in(values[name], where, InputError)
            values = {**values, name: found}
        return super().from_dict(values, source, group)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "sklearn_parameters"
        content = rules.read_parameters(getattr(self, name), f"--{name}")
        object.__setattr__(self, name, content)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Settings):
    """The outer loop's update."""

    outer_lr: float = setting(
        1e-4, "Learning rate of the outer loop's Adam.", rules.above_zero(), "eta"
    )
    gradient_threshold: float = setting(
        0.1, "Largest magnitude of a gradient's entries; 0 does not clip.", _WEIGHT
    )
    gradient_norm_threshold: float = setting(
        0.1,
        "Largest norm of each gradient, applied after --gradient_threshold; 0 does not "
        "clip.",
        _WEIGHT,
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """Length of training, amount of evaluation, and files to write."""

    num_steps: int = setting(100_000, "Training steps.", _COUNT)
    validate_every: int = setting(
        1000, "Steps between validations, and between checkpoints.", _COUNT
    )
    patience: int = setting(
        0,
        "End training after this many validations without a new best; 0 disables this.",
        _COUNT_OR_ZERO,
    )
    num_val_episodes: int = setting(2000, "Episodes of one validation.", _COUNT)
    num_test_episodes: int = setting(
        10_000, "Episodes of the test after training.", _COUNT
    )
    test_samples: int = setting(
        0,
        "Number of draws of LEO's latents and weights to average test predictions "
        "over. 0 uses their means.",
        _COUNT_OR_ZERO,
    )
    seed: int = setting(0, "Seed of everything random.", _COUNT_OR_ZERO)
    jit: str = setting(
        "auto",
        "Compile the training step with XLA; auto does where it pays.",
        rules.choice("auto", "on", "off"),
    )
    mixed_precision: bool = setting(
        False,
        "Compute matrix products of LEO and its ablations, and convolutions of "
        "backbones in training, in bfloat16, for hardware that supports it. Everything "
        "else stays in float32. With --images alone, only for the backbone.",
        rules.boolean(),
    )
    strategy: str = setting(
        "none",
        "Divide each training step among all devices of this machine (mirrored) or of "
        "the machines in TF_CONFIG (multi_worker). With --images alone, the steps "
        "that train the backbone.",
        rules.choice("none", "mirrored", "multi_worker"),
    )
    log_every: int = setting(100, "Steps between scalars in TensorBoard.", _COUNT)
    non_finite_limit: int = setting(
        200,
        "End the run once a counter exceeds this: each non-finite step adds 1, each "
        "finite step takes 1 away, never below 0.",
        _COUNT_OR_ZERO,
    )
    keep_checkpoints: int = setting(
        3, "Latest checkpoints to keep, besides the best.", rules.integer(2)
    )
