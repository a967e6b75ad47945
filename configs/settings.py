"""The groups of settings: each setting with its default, meaning and check.

Defaults are those of the original release (`config.py`, `runner.py`), so that its
commands mean here what they meant there. Symbols are those of the paper,
arXiv:1807.05960. The flags of the command line are derived from this file.
"""

import dataclasses

from leo_tf.configs import rules
from leo_tf.configs.rules import Rule, Settings, setting

EMBEDDED_DATASET = "glyphs"
# What becomes the size of a tensor or the length of an unrolled loop is bounded, or a
# line of config.json could take all memory. The relation network's three kernels have
# 4 n_z^2 entries each; the published n_z is 64.
_MOST_LATENTS, _MOST_INNER_STEPS, _MOST_EXAMPLES = 4096, 1000, 65_536
_STEPS = rules.integer(0, _MOST_INNER_STEPS)
_EXAMPLES, _CLASSES = (rules.integer(least, _MOST_EXAMPLES) for least in (1, 2))
_COUNT, _COUNT_OR_ZERO = rules.integer(1), rules.integer(0)
_WEIGHT = Rule(float, "a number of 0 or more", lambda value: value >= 0)
# A probability that is not 1: kept values are divided by 1 - rate.
_RATE = Rule(float, "a number of 0 or more and below 1", lambda rate: 0 <= rate < 1)


# Below, all queries are of one class but for rounding; above, classes have as many.
def _is_concentration(value: float) -> bool:
    return 0.01 <= value <= 1000


_SHARE = Rule(float, "a number from 0 to 1", lambda x: 0 <= x <= 1, optional=True)
_NAME = "a name without /, \\, .., outer blanks or control characters"
# `methods.registry` finds it.
_METHOD = "a name such as leo, package.module:Class or sklearn:package.module.Class"


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Which embeddings to read, and how."""

    dataset_name: str = setting(
        EMBEDDED_DATASET,
        "Data set to read below --data_path; glyphs, without it, is embedded.",
        Rule(str, _NAME, rules.is_file_name),
    )
    data_path: str = setting(
        "", "Directory of embeddings in the release's layout, or a file.", rules.path()
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
        "Classes to take from those of train for val, where the data has no val; "
        "which ones, their names decide.",
        _COUNT_OR_ZERO,
    )
    class_split: str = setting(
        "",
        "Shares of the classes for train, val and test, where the data has no splits; "
        'or a JSON file of {"train": [names], "val": ..., "test": ...}.',
        rules.class_split(),
    )
    class_folds: int = setting(
        0,
        "Instead, share the classes in so many parts: --fold is tested, the next is "
        "val; --mode=compare without --fold tests each.",
        Rule(
            int, "0, or an integer from 3 to 1000", lambda n: n == 0 or 3 <= n <= 1000
        ),
    )
    fold: int | None = setting(
        None,
        "Which of --class_folds is tested, counted from 0.",
        rules.integer(0, 999, optional=True),
    )
    split_seed: int = setting(
        0,
        "Another number gives other splits by --class_split or --class_folds; --seed "
        "does not, so that runs of several seeds test on the same classes.",
        _COUNT_OR_ZERO,
    )
    trust_data_files: bool = setting(
        False,
        "Read Parquet and Arrow files too, by a parser in C++ that a file made to "
        "attack it might take over: only if you trust whoever wrote them.",
        rules.boolean(),
    )
    drop_small_classes: bool = setting(
        False,
        "Leave out classes with too few rows for an episode, naming them.",
        rules.boolean(),
    )
    dtype: str = setting(
        "float32",
        "Floating-point type of the embeddings, the variables and all arithmetic.",
        rules.choice("float32", "float64"),
    )

    @property
    def is_embedded(self) -> bool:
        """Whether the data is drawn by this package, not read from `data_path`."""
        return self.dataset_name == EMBEDDED_DATASET and not self.data_path

    @property
    def shares_classes(self) -> bool:
        """Whether classes are shared among the splits, of data that has none."""
        return bool(self.class_split or self.class_folds)


# What `feature_transform` may be.
TRANSFORMS = ("none", "center", "within", "lda", "soft")


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Settings):
    """What is done to features before a method gets them, by the training classes."""

    feature_transform: str = setting(
        "none",
        "Take off the training classes' mean (center); then make their scatter within "
        "classes even (within), keep the first linear discriminants (lda) or weigh all "
        "of these (soft).",
        rules.choice(*TRANSFORMS),
    )
    feature_power: float = setting(
        1.0,
        "Before that, raise all numbers to this power: 0.5 evens out features that are "
        "not negative.",
        rules.above_zero(),
    )
    transform_dims: int | None = setting(
        None,
        "Discriminants that lda keeps; unless given, chosen on the validation episodes "
        "or, of a method that is trained, 64 at most.",
        rules.integer(1, optional=True),
    )
    transform_shrinkage: float | None = setting(
        None,
        "Share of the scatter within classes, 0 to 1, that is replaced by the same in "
        "all directions; unless given, chosen on the validation episodes.",
        _SHARE,
    )

    @property
    def chosen(self) -> tuple[str, ...]:
        """The settings that make a difference to this transform, if not given."""
        dims = ("transform_dims",) if self.feature_transform == "lda" else ()
        inverts = self.feature_transform in ("within", "lda", "soft")
        return (*dims, "transform_shrinkage") if inverts else ()

    @property
    def unused(self) -> tuple[str, ...]:
        """The settings that make no difference to this transform."""
        power = () if self.feature_transform == "none" else ("feature_power",)
        used = ("feature_transform", *power, *self.chosen)
        return tuple(f.name for f in dataclasses.fields(self) if f.name not in used)


@dataclasses.dataclass(frozen=True)
class EpisodeConfig(Settings):
    """What one few-shot problem is made of."""

    way: int = setting(5, "Classes of an episode.", _CLASSES, "N")
    shot: int = setting(1, "Support examples of a class.", _EXAMPLES, "K")
    num_query: int = setting(15, "Query examples of a class while training.", _EXAMPLES)
    meta_batch_size: int = setting(12, "Episodes of one training step.", _EXAMPLES)
    test_way: int | None = setting(
        None,
        "Classes of a validation or test episode; as --way unless given.",
        rules.integer(2, _MOST_EXAMPLES, optional=True),
    )
    test_shot: int | None = setting(
        None,
        "Support examples of a class of a validation or test episode; as --shot "
        "unless given.",
        rules.integer(1, _MOST_EXAMPLES, optional=True),
    )
    test_num_query: int | None = setting(
        None,
        "Query examples of a class of a validation or test episode; unless given, "
        "all that the smallest class has left, at most 600 with the support.",
        rules.integer(1, _MOST_EXAMPLES, optional=True),
    )
    query_dirichlet: float | None = setting(
        None,
        "Concentration of a Dirichlet distribution that shares out the queries of a "
        "validation or test episode among its classes, 2 is usual; unless given, each "
        "has as many. With it --test_num_query is as --num_query unless given.",
        Rule(float, "a number from 0.01 to 1000", _is_concentration, optional=True),
    )

    @property
    def evaluation_way(self) -> int:
        """N of a validation or test episode."""
        return self.way if self.test_way is None else self.test_way

    @property
    def evaluation_shot(self) -> int:
        """K of a validation or test episode."""
        return self.shot if self.test_shot is None else self.test_shot


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
    inner_lr_init: float | None = setting(
        None,
        "First value of the learned rates of latents; unless given 1, and for "
        "embeddings of D < 64 numbers sqrt(D / 64).",
        rules.above_zero(optional=True),
        "alpha",
    )
    finetuning_lr_init: float = setting(
        0.001, "First value of the learned rates of fine-tuning.", rules.above_zero()
    )
    dropout_rate: float = setting(
        0.5, "Share of the embedding's entries dropped in training.", _RATE
    )
    kl_weight: float = setting(
        1e-3, "Weight of the KL of the latent codes.", _WEIGHT, "beta"
    )
    encoder_penalty_weight: float = setting(
        1e-9,
        "Weight of the distance between latents before and after adaptation.",
        _WEIGHT,
        "gamma",
    )
    l2_penalty_weight: float = setting(
        1e-8, "Weight of half the sum of squares of the kernels.", _WEIGHT, "lambda_1"
    )
    orthogonality_penalty_weight: float = setting(
        1e-3,
        "Weight of the correlation between the decoder's rows.",
        _WEIGHT,
        "lambda_2",
    )
    deterministic: bool = setting(
        False,
        "Train on the means of latents and weights: no draws, and so no KL.",
        rules.boolean(),
    )
    random_prior: bool = setting(
        False,
        "Latents begin as draws from N(0, 1), blind to the support: no encoder.",
        rules.boolean(),
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig(Settings):
    """Which method, and the settings of those that LEO is compared with."""

    method: str = setting(
        "leo", "What to train and test.", Rule(str, _METHOD, rules.is_method_name)
    )
    adaptation_steps: int = setting(
        5,
        "Gradient steps of MAML and Meta-SGD on the support.",
        rules.integer(1, _MOST_INNER_STEPS),
    )
    adaptation_lr_init: float = setting(
        10.0,
        "Rate of MAML's steps, and first value of Meta-SGD's learned rates.",
        rules.above_zero(),
        "alpha",
    )
    first_order: bool = setting(
        False,
        "MAML and Meta-SGD learn as if the gradients of their steps were constants.",
        rules.boolean(),
    )
    ridge_strength: float | None = setting(
        None,
        "Weight of ridge regression's penalty; unless given, chosen on the "
        "validation episodes.",
        rules.above_zero(optional=True),
    )
    logistic_strength: float | None = setting(
        None,
        "Weight of logistic regression's penalty; unless given, chosen on the "
        "validation episodes.",
        rules.above_zero(optional=True),
    )
    calibration_classes: int = setting(
        2,
        "Distribution calibration: training classes that lend their scatter to an "
        "example.",
        _EXAMPLES,
        "k",
    )
    calibration_samples: int = setting(
        100,
        "Distribution calibration: samples of a class, shared among its examples.",
        _EXAMPLES,
    )
    calibration_alpha: float = setting(
        0.1,
        "Distribution calibration: added to all variances, in units of their mean.",
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
        "How much the closed form counts, 0 to 1; unless given, chosen on the "
        "validation episodes after training.",
        _SHARE,
    )
    assignment_sharpness: float | None = setting(
        None,
        "Soft k-means: factor of squared distances before queries are assigned by a "
        "softmax; unless given, chosen on the validation episodes.",
        rules.above_zero(optional=True),
    )
    laplacian_weight: float | None = setting(
        None,
        "LaplacianShot: weight of a query's neighbours; unless given, chosen on the "
        "validation episodes.",
        rules.above_zero(optional=True),
        "lambda",
    )
    sklearn_parameters: str = setting(
        "",
        "JSON file of the parameters of the class that --method=sklearn:CLASS names; "
        "its content is kept.",
        dataclasses.replace(rules.path(), expected="the path of a JSON file"),
    )
    score_scale: float | None = setting(
        None,
        "Factor of the scores of methods that are not trained, which decides how "
        "sure they are; unless given, chosen on the validation episodes.",
        rules.above_zero(optional=True),
    )

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
        0.1, "Every entry of a gradient is clipped to this; 0 does not clip.", _WEIGHT
    )
    gradient_norm_threshold: float = setting(
        0.1, "Then each gradient's norm is clipped to this; 0 does not clip.", _WEIGHT
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """How long to train, how much to evaluate, what to write."""

    num_steps: int = setting(100_000, "Training steps.", _COUNT)
    validate_every: int = setting(
        1000, "Steps between validations, and between checkpoints.", _COUNT
    )
    patience: int = setting(
        0,
        "Training ends early after so many validations without a new best; 0 never.",
        _COUNT_OR_ZERO,
    )
    num_val_episodes: int = setting(2000, "Episodes of one validation.", _COUNT)
    num_test_episodes: int = setting(
        10_000, "Episodes of the test after training.", _COUNT
    )
    test_samples: int = setting(
        0,
        "Draws of LEO's latents and weights to average a test's predictions over; 0 "
        "takes their means.",
        _COUNT_OR_ZERO,
    )
    seed: int = setting(0, "All randomness follows from it.", _COUNT_OR_ZERO)
    jit: str = setting(
        "auto",
        "Whether XLA compiles the training step; auto where it pays.",
        rules.choice("auto", "on", "off"),
    )
    mixed_precision: bool = setting(
        False,
        "Compute the matrix products in bfloat16, for hardware that is made for it; "
        "everything else stays in float32.",
        rules.boolean(),
    )
    strategy: str = setting(
        "none",
        "Share each training step among all devices of this machine (mirrored), or of "
        "several that TF_CONFIG lists (multi_worker).",
        rules.choice("none", "mirrored", "multi_worker"),
    )
    log_every: int = setting(100, "Steps between scalars in TensorBoard.", _COUNT)
    non_finite_limit: int = setting(
        200,
        "The run ends if steps that are not finite outnumber others by more than this.",
        _COUNT_OR_ZERO,
    )
    keep_checkpoints: int = setting(
        3, "Latest checkpoints to keep; the best is kept besides.", rules.integer(2)
    )
