# A new machine needs Python 3.10 to 3.13, pip, git and make; nothing else.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo try test lint types bench install install-test clean

demo: install  ## trains and tests LEO on the embedded data set: minutes, with the installation
	$(VENV)/bin/python run_leo.py

# Of `make demo`, or trained now; `demo` trains there, too.
TRY := runs/glyphs_5way_1shot
try: $(VENV)/installed-serve  ## a page where anyone teaches the demo's model: prints its address
	test -f $(TRY)/results.json || $(VENV)/bin/python run_leo.py
	test -d $(TRY)/exported || $(VENV)/bin/python run_leo.py --mode=export --workdir=$(TRY) --export_dir=$(TRY)/exported
	@echo "Open the address below in a browser; Ctrl-C ends it."
	$(VENV)/bin/python run_leo.py --mode=serve --export_dir=$(TRY)/exported

test: install-test  ## all quick tests, two files at a time
	TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

# Of the package as it is installed: in the checkout, configs/ is no part of leo_tf/.
types: install-test  ## mypy
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(VENV)/bin/python -m mypy --config-file ../../pyproject.toml -p leo_tf

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

$(VENV)/installed-serve: $(VENV)/installed
	$(PIP) --editable ".[serve]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
