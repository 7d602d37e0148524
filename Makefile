# Every target sets up what it needs: a virtual environment in .venv with the locked packages.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCE ?= simulated
EVENTS ?=
KEEP ?=

# Modules are compiled once: half of a start would go into compiling them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast lint audit bench lock docs clean clients

$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

# The main job: history -> models -> live scores. `make demo SOURCE=taobao EVENTS=path/to/UserBehavior.parquet`
# With KEEP=1 there is a shop to visit, whose pages need the browser client; all else does without npm.
demo: $(VENV)/.ready
	$(if $(KEEP),@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(CLIENT)/dist/.ready || true; fi)
	$(BIN)/lotse demo --source $(SOURCE) $(if $(EVENTS),--events $(EVENTS)) $(if $(KEEP),--keep)

# Two processes share the cores: OpenMP's threads must not spin while they wait for each other. The order of files is ours.
test: $(VENV)/.ready
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow"

# The clients that are built, and those of their tests that need no browser and no service. `make test` does this, too.
CLIENT := clients/browser
EXPRESS := clients/express

clients: $(CLIENT)/dist/.ready $(EXPRESS)/dist/.ready
	cd $(CLIENT) && npm run --silent test
	cd $(EXPRESS) && npm run --silent types

$(CLIENT)/dist/.ready: $(CLIENT)/node_modules/.ready $(wildcard $(CLIENT)/src/*.ts) $(CLIENT)/build.mjs $(CLIENT)/tsconfig.json
	cd $(CLIENT) && npm run --silent build
	touch $@

$(EXPRESS)/dist/.ready: $(EXPRESS)/node_modules/.ready $(wildcard $(EXPRESS)/src/*.ts) $(EXPRESS)/tsconfig.json
	rm -rf $(EXPRESS)/dist
	cd $(EXPRESS) && npm run --silent build
	touch $@

%/node_modules/.ready: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lotse features docs --check

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.compiling
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.starting
	$(BIN)/python -m benchmarks.training

# Known vulnerabilities of the locked packages.
audit: $(VENV)/.ready
	$(BIN)/python .ci/audit.py

docs: $(VENV)/.ready
	$(BIN)/lotse features docs

# The lock holds names, versions and hashes, and no address to load them from.
lock: $(VENV)/.ready
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
		--extra dev --extra benchmarks --extra cassandra --extra distributed --extra otel --extra postgresql --extra redis \
		--output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info $(CLIENT)/dist $(CLIENT)/build $(CLIENT)/node_modules $(EXPRESS)/dist $(EXPRESS)/node_modules
	rm -rf clients/spring-boot/target .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
