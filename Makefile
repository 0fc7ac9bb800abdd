# One verb a task; README and CONTRIBUTING explain them, CI runs them.
PYTHON ?= python3
PRESET ?= smoke
TORCH ?=                    # cpu, cu126 or cu130: the build of torch; without it pip's choice
LOCK ?= requirements.lock   # empty: what the pinned packages bring is not pinned itself
REQUIREMENTS ?= -r requirements.txt  # "-e .": the newest versions that pyproject.toml lets in
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup report test book pdf lint lock clean
.DEFAULT_GOAL := report

# The stamps say which requirements the environment was made from; a changed file makes it anew.
# torch is not in the lock, as its build depends on the machine: uv finds the one that TORCH names.
.venv/.setup: requirements.txt requirements.lock pyproject.toml $(if $(strip $(TORCH)),FORCE)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 14) or sys.exit("Python 3.11 to 3.14 is needed, as torch has no wheels for others; this is %d.%d: name another by PYTHON=" % v)'
	$(PYTHON) -m venv .venv
	$(if $(strip $(LOCK)),$(PIP) --require-hashes --no-deps -r $(LOCK))
	$(if $(strip $(TORCH)),$(PIP) uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH) --reinstall-package torch $$(grep ^torch== requirements.txt))
	$(PIP) $(REQUIREMENTS)
	@touch $@

FORCE:

.venv/.test: .venv/.setup tests/requirements.txt tests/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@npm ci --prefix tests --no-audit --no-fund --silent \
	|| echo "axe-core cannot be installed by npm: the tests of accessibility will be skipped"
	@touch $@

setup: .venv/.setup

report: .venv/.setup
	@$(BIN)/python -m psannlm report --preset $(PRESET)

book: .venv/.setup
	@$(BIN)/jb build book/ -W -n --keep-going

pdf: .venv/.setup
	@$(BIN)/python -m psannlm pdf

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or browser"

# Everything but torch and what its CUDA build brings, each by its hashes.
NOT_LOCKED := triton cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 \
	nvidia-nccl-cu13 nvidia-nvshmem-cu13

lock: .venv/.setup
	$(PIP) uv
	printf '%s\n' $(NOT_LOCKED) | $(BIN)/uv pip compile requirements.txt --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --quiet --upgrade --excludes - \
	  --no-emit-package torch --no-emit-package psannlm-report \
	  --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf .venv _build book/results
