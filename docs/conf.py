"""Settings of the site that `make docs` builds, from this whole checkout."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import leo_tf  # noqa: E402
from leo_tf.cli.flags import help_text  # noqa: E402

project = "leo-tf"
author = "The leo-tf contributors"
version = release = leo_tf.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "dist", "runs", "shared", "tests", "node_modules"]

# Notebooks are shown as they were run and committed; a test runs them anew.
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# In docstrings, `x` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"leo-tf {release}"
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
# What a page is written in is in the repository already.
html_copy_source = False


def _with_help(app, page, source):
    if page == "docs/flags":
        source[0] = source[0].replace("HELP_TEXT", help_text("leo-tf"))


def setup(app):
    app.connect("source-read", _with_help)
