# One line each. PYTHON makes the environment, VENV_FLAGS=--system-site-packages lets it see a torch that is already there.
PYTHON ?= python3
VENV_FLAGS ?=
WORKERS ?= auto
DATA ?= ../shared/data
PY := .venv/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check -c .venv/constraints.txt
READY := .venv/.installed

CORE := CMakeLists.txt $(shell find csrc -name '*.cc' -not -path '*/tests/*' -o -name '*.h' -o -name '*.inc')
TOOLS := export PATH="$(CURDIR)/.venv/bin:$$PATH";

.PHONY: demo test check core bench docs size
demo: $(READY) ; $(PY) -m bitladder demo -o bitladder-demo
test: $(READY) ; OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --maxprocesses 8
check: $(READY) ; $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && $(PY) -m pytest tests/test_layers.py
core: ; $(TOOLS) cmake -S . -B build/core -DBITLADDER_DEV=ON && cmake --build build/core -j $$(nproc) && ctest --test-dir build/core --output-on-failure
bench: $(READY) ; for name in criteria nested kernels networks robustness; do $(PY) -m bench $$name --quick --data-dir $(DATA) || exit 1; done && $(PY) -m bench.table
docs: $(READY) ; $(PY) -m sphinx -W -q -b html docs docs/_build && echo docs/_build/index.html
size: ; @find src -name '*.py' | xargs wc -l | sort -n | tail -25

# Versions are those of constraints.txt, but a torch that the environment can already import stays as it is. The core is built
# with the tools of .venv, so that a second time only what has changed is compiled.
$(READY): pyproject.toml constraints.txt $(CORE)
	test -x $(PY) || $(PYTHON) -m venv $(VENV_FLAGS) .venv
	if $(PY) -c 'import torch' 2>/dev/null; then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi > .venv/constraints.txt
	$(PIP) scikit-build-core nanobind cmake ninja
	$(PIP) --no-build-isolation -e '.[dev]'
	$(PY) -m bitladder --version
	touch $(READY)
