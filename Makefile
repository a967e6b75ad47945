# A new machine needs Python 3.10 to 3.13, pip, git and make; nothing else.
PYTHON ?= python3
VENV := .venv
# Modules are compiled when first imported, not all of TensorFlow's at once: half the time.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo try test test-long test-slow test-browser test-oldest bench lint types docs wheel install install-test clean

help:  ## lists these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

demo: install  ## trains and tests LEO on the embedded data set: minutes, with the installation
	$(VENV)/bin/python run_leo.py

# The run of `make demo`, or of the same command now; and its export.
DEMO := runs/glyphs_5way_1shot
DEMO_EXPORT := runs/glyphs_exported
PORT ?= 8501
try: $(VENV)/installed-serve  ## a page where anyone teaches the demo's model: prints its address
	test -f $(DEMO)/results.json || $(VENV)/bin/python run_leo.py
	ls $(DEMO_EXPORT)/*/saved_model.pb > /dev/null 2>&1 && test $(DEMO_EXPORT) -nt $(DEMO)/results.json || \
		$(VENV)/bin/python run_leo.py --mode=export --workdir=$(DEMO) --export_dir=$(DEMO_EXPORT)
	@echo "Open the address below in a browser; Ctrl-C ends the server."
	$(VENV)/bin/python run_leo.py --mode=serve --export_dir=$(DEMO_EXPORT) --port=$(PORT)

PYTEST := TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python -m pytest
# Two files at a time.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

test: install-test  ## the quick tests: five to nine minutes on two cores
	$(PYTEST) $(PARALLEL)

TESTS := tests

test-long: install-test  ## the tests of whole jobs, exports and packages: five to ten minutes; or TESTS=path
	$(PYTEST) $(PARALLEL) -m "long and not slow" $(TESTS)

test-slow: $(VENV)/installed-cluster install-test  ## the tests that take minutes each: kills, whole jobs, clusters
	$(PYTEST) -m slow

test-browser: $(VENV)/installed-serve install-test  ## the pages, driven in Chromium by Selenium
	$(PIP) selenium
	$(PYTEST) -m browser

# In a separate environment, because all versions differ; pip reads the variable.
test-oldest:  ## tests, site and a cluster job with the oldest packages that setup.py allows, on Python 3.10
	PIP_CONSTRAINT=$(CURDIR)/tests/oldest.txt $(MAKE) test test-long docs .venv-oldest/installed-cluster VENV=.venv-oldest PYTHON=python3.10
	TF_CPP_MIN_LOG_LEVEL=2 .venv-oldest/bin/python -m pytest -m slow tests/leo_tf/experiments/runner -k cluster

bench: install-test  ## six benchmarks of speed, one after the other: half an hour on two cores
	$(VENV)/bin/python benchmarks/meta_step.py
	$(VENV)/bin/python benchmarks/episode_supply.py
	$(VENV)/bin/python benchmarks/evaluation_speed.py
	$(VENV)/bin/python benchmarks/startup.py
	$(VENV)/bin/python benchmarks/growth.py
	$(VENV)/bin/python benchmarks/peers_speed.py

lint: $(VENV)/bin/python  ## ruff: style and form
	$(PIP) ruff==0.17.6
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Of the package as it is installed: in the checkout, configs/ is no part of leo_tf/.
types: install-test  ## mypy
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(VENV)/bin/python -m mypy --config-file ../../pyproject.toml -p leo_tf

docs: $(VENV)/installed-docs  ## the site, from docs/ and the docstrings, into build/docs; a warning is an error
	TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python -m sphinx -W --keep-going -q -c docs . build/docs

# The wheel alone, beside a project that has a configs/ of its own.
wheel: | $(VENV)/bin/python  ## builds dist/, and trains with it in a separate environment
	rm -rf dist build/wheel build/project
	$(PIP) build
	$(VENV)/bin/python -m build --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	mkdir -p build/project/configs && touch build/project/configs/__init__.py
	cd build/project && ../wheel/bin/python -c "import configs, leo_tf.configs as c; assert c is not configs"
	cd build/project && ../wheel/bin/python -m leo_tf --num_steps=20 --num_val_episodes=20 --num_test_episodes=20

install: $(VENV)/installed  ## installs the package into .venv, from this checkout
install-test: $(VENV)/installed-test  ## installs what the tests need, too

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py | $(VENV)/bin/python
	@echo "Installing into $(VENV): TensorFlow is large, this takes a minute or two."
	$(PIP) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable ".[docs]"
	touch $@

$(VENV)/installed-cluster: $(VENV)/installed
	$(PIP) --editable ".[cluster]"
	touch $@

$(VENV)/installed-serve: $(VENV)/installed
	$(PIP) --editable ".[serve]"
	touch $@

clean:  ## removes .venv and all that was built
	rm -rf $(VENV) .venv-oldest build dist *.egg-info
