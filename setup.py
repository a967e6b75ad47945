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
SERVE = ["starlette", "uvicorn", "prometheus_client", "orjson"]
# What draws the trials of --mode=search; scipy draws for --sampler=qmc.
SEARCH = ["optuna>=4.0", "scipy"]
# psutil sees what worker processes have open.
# scikit-learn is what the baselines are compared with, and by whose checks the client
# goes, with data of pandas; xdist runs tests side by side;
# nbclient runs the notebook; a test builds the wheel, with nothing from the network.
TEST = [
    *("pytest", "pytest-xdist", "hypothesis", "scikit-learn", "pandas", "mypy"),
    *("pyarrow", "psutil"),
    *("setuptools>=64", "wheel"),
    *("nbclient", "ipykernel", *SERVE, *SEARCH),
]

setuptools.setup(
    name="leo-tf",
    version=VERSION,
    description="Meta-Learning with Latent Embedding Optimization in TensorFlow 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # One name in site-packages: users have folders of these names themselves.
    package_dir={
        "leo_tf.configs": "configs",
        "leo_tf.data_pipeline": "data_pipeline",
    },
    packages=[
        *("leo_tf", *setuptools.find_packages(include=["leo_tf.*"])),
        *(f"leo_tf.{name}" for name in setuptools.find_packages(include=OURS)),
    ],
    package_data={"leo_tf": ["py.typed", "serving/openapi.json"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "tensorflow>=2.18,<2.23",
        # Without the extra it cannot be imported: it needs tf_keras.
        "tensorflow-probability[tf]>=0.25",
        "keras>=3.5",
        "numpy>=1.26",
        "absl-py",
        # TensorFlow 2.21 no longer brings it.
        "tensorboard",
        # Its fonts are the embedded data set, and it draws the pictures.
        "matplotlib",
        "rich",
    ],
    extras_require={
        "serve": SERVE,
        "sklearn": ["scikit-learn"],  # for --method=sklearn:...
        "arrow": ["pyarrow"],  # for Parquet and Arrow files
        "search": SEARCH,
        "cluster": ["ray>=2.9"],  # for --cluster
        "test": TEST,
        "dev": [*TEST, "ruff", "schemathesis"],
        # What benchmarks/peers_speed.py compares with.
        "peers": ["jax>=0.6", "optax>=0.2.3", "torch>=2.4"],
    },
    entry_points={"console_scripts": ["leo-tf = leo_tf.cli.main:main"]},
)
