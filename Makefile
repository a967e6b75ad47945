# A new machine needs Python 3.10 to 3.13, pip, git and make; nothing else.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test types lint bench install install-test clean

demo: install  ## trains and tests LEO on the embedded data set: minutes, with the installation
	$(VENV)/bin/python run_leo.py

test: install-test  ## all quick tests, two files at a time
	TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

# Of the installed package: in a checkout mypy does not find leo_tf.configs.
types: install-test  ## mypy on the package as it is installed, not on the checkout
	rm -rf build/lib build/types
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(VENV)/bin/mypy --config-file=../../pyproject.toml -p leo_tf

bench: install-test  ## every benchmark of speed, one after the other: half an hour on two cores
	$(VENV)/bin/python benchmarks/meta_step.py
	$(VENV)/bin/python benchmarks/episode_supply.py
	$(VENV)/bin/python benchmarks/evaluation_speed.py
	$(VENV)/bin/python benchmarks/startup.py
	$(VENV)/bin/python benchmarks/growth.py
	$(VENV)/bin/python benchmarks/peers_speed.py

lint: install-test
	$(PIP) ruff
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

install: $(VENV)/installed
install-test: $(VENV)/installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py | $(VENV)/bin/python
	@echo "Installing into $(VENV): TensorFlow is large, this takes a minute or two."
	$(PIP) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
