"""Installs leo-tf: `pip install .`, with the extras below."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "leo_tf" / "__init__.py").read_text()
)[1]
# Top-level folders that are installed below leo_tf.
OURS = ["configs", "configs.*", "data_pipeline", "data_pipeline.*"]
# An ASGI server, the toolkit it runs, its metrics, and faster JSON, for --mode=serve.
SERVE = [
    *("starlette>=1.7", "uvicorn>=0.30", "prometheus_client>=0.20", "orjson>=3.10"),
]
# Sphinx reads the Markdown of docs/ by MyST, notebooks with their outputs too.
DOCS = ["sphinx>=8", "myst-nb>=1.2", "furo>=2024.8.6"]
# Features of sentences and sounds, weights within, for recipes of docs/pictures.md.
RECIPES = [
    'wordllama>=0.4,<0.5; python_version>="3.11"',  # they want NumPy 2, or 3.11
    'livekit-wakeword>=0.3; python_version>="3.11"',
]
# Optuna draws the trials of --mode=search, and scipy those of --sampler=qmc.
SEARCH = ["optuna>=4.0", "scipy>=1.12"]
# psutil sees what worker processes have open.
# Baselines are compared with scikit-learn's, and the client passes its checks, also
# with data of pandas; xdist runs tests side by side;
# nbclient runs the notebook; a test builds the wheel, with nothing from the network.
TEST = [
    *("pytest>=8", "pytest-xdist>=3.8", "hypothesis>=6.100", "mypy>=1.10"),
    *("scikit-learn>=1.6", "pandas>=2.2", "pyarrow>=15", "psutil>=6"),
    *("setuptools>=64", "wheel"),
    *("nbclient>=0.10", "ipykernel>=6.29", *SERVE, *SEARCH, *RECIPES),
]

setuptools.setup(
    name="leo-tf",
    version=VERSION,
    description="Few-shot classification by LEO (Meta-Learning with Latent Embedding "
    "Optimization), in TensorFlow 2",
    # Links to files of the checkout lead nowhere from the package index.
    long_description=re.sub(
        r"!?\[([^]]*)\]\((?!http)[^)]*\)",
        r"\1",
        (HERE / "README.md").read_text(encoding="utf-8"),
    ),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="few-shot learning, meta-learning, LEO, TensorFlow, Keras",
    project_urls={"Paper": "https://arxiv.org/abs/1807.05960"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # One name in site-packages: users have folders of these names themselves.
    package_dir={
        "leo_tf.configs": "configs",
        "leo_tf.data_pipeline": "data_pipeline",
    },
    packages=[
        *("leo_tf", *setuptools.find_packages(include=["leo_tf.*"])),
        *(f"leo_tf.{name}" for name in setuptools.find_packages(include=OURS)),
    ],
    package_data={
        "leo_tf": ["py.typed"],
        "leo_tf.serving.pages": ["openapi.json", "static/*"],
    },
    python_requires=">=3.10,<3.14",
    install_requires=[
        "tensorflow>=2.18,<2.23",
        # Without the extra it cannot be imported: it needs tf_keras.
        "tensorflow-probability[tf]>=0.25",
        "keras>=3.5",
        "numpy>=1.26",
        "absl-py>=1.4",
        # TensorFlow 2.21 no longer brings it.
        "tensorboard>=2.18",
        # Its fonts are the embedded data set, and it draws the pictures.
        "matplotlib>=3.8",
        "rich>=14.3",  # older ones print a stray empty line after progress
    ],
    extras_require={
        "serve": SERVE,
        "sklearn": ["scikit-learn>=1.6"],  # for --method=sklearn:...
        "arrow": ["pyarrow>=15"],  # for Parquet and Arrow files
        "search": SEARCH,
        "cluster": ["ray>=2.9"],  # for --cluster
        "recipes": RECIPES,  # for the recipes of docs/pictures.md
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, *DOCS, "ruff==0.17.6", "schemathesis", "build", "pre-commit"],
        # What benchmarks/peers_speed.py compares with.
        "peers": ["jax>=0.6", "optax>=0.2.3", "torch>=2.4"],
    },
    entry_points={"console_scripts": ["leo-tf = leo_tf.cli.main:command"]},
)
