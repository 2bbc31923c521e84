# Everything ds-flow needs from its checkout; `make` lists the targets.

SHELL := bash
unexport UV_PROJECT_ENVIRONMENT # every target works with .venv
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

UV := .ci/uv
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -n 3

NAME :=
PREFIX :=
PURGE :=
DOCKER := docker
BASE := python:3.11-slim
IMAGE := ds-flow

.PHONY: help setup demo test check docs reference diagrams screenshots attack faults bench history soak wheel sbom image container crash chaos memory mutants power audit install uninstall services lock format clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: .venv/.synced ## make .venv with ds-flow and everything it needs

# The stamp lives in .venv, so that it goes when the environment is made anew. It names the folder:
# the commands of an environment that was moved or copied with it still belong to the old place.
ifneq ($(file <.venv/.synced),$(CURDIR))
.PHONY: .venv/.synced
endif
.venv/.synced: pyproject.toml
	@[[ "$$(cat $@ 2>/dev/null)" == '$(CURDIR)' ]] || rm -rf .venv
	@.ci/sync
	@echo '$(CURDIR)' >$@

demo: setup ## run a small project in build/demo and tell what happens
	@$(BIN)/python .ci/demo.py build/demo

test: setup ## run the tests, except those marked exhaustive
	@$(PYTEST) -m 'not exhaustive'

check: setup ## run every check; all tests come last
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive daemon flows .ci
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@find .ci bash container systemd tests -type f \
	    -exec awk 'FNR == 1 && /^#!.*[\/ ](ba)?sh/ { printf "%s%c", FILENAME, 0 }' {} + \
	    | xargs -0 --no-run-if-empty $(BIN)/shellcheck
	@$(BIN)/python .ci/reference.py --check
	@$(BIN)/python .ci/docs.py
	@.ci/verify-unit systemd/ds-flow.service systemd/drop-ins/*.conf
	@.ci/verify-unit systemd/ds-flow-web.service systemd/drop-ins/web/*.conf
	@$(PYTEST)

docs: setup ## build the documentation as a site, build/docs/index.html
	@$(BIN)/python .ci/docs.py
	@echo build/docs/index.html

reference: setup ## write docs/reference/ from the code
	@$(BIN)/python .ci/reference.py

diagrams: ## draw docs/images/*.svg from the *.dot beside them; needs graphviz
	@for file in docs/images/*.dot; do dot -Tsvg "$$file" -o "$${file%.dot}.svg"; done

screenshots: setup ## take docs/images/*.png and docs/terminal/*.txt anew, from a real project
	@PYTHONPATH=tests/support:tests $(BIN)/python tests/bench/screenshots.py

attack: setup ## attack ds-flow as a dropper of files, another user, an image; as root
	@[[ $$EUID == 0 ]] || { echo 'make attack: needs root, because the tests act as other users' >&2; exit 1; }
	@$(PYTEST) tests/attack

faults: setup ## break LSF in every known way under 200 jobs
	@DS_FLOW_ELEMENTS=200 $(PYTEST) --dist load tests/backends/test_lsf.py

bench: setup ## measure speed and memory on this machine
	@PYTHONPATH=tests/support:tests $(BIN)/python -m bench.bench

history: setup ## measure what 10,000 runs of history cost, and what gc gives back
	@PYTHONPATH=tests/support:tests $(BIN)/python tests/bench/history.py

soak: setup ## let the service idle for ten minutes and measure what that costs; as root
	@PYTHONPATH=tests/support:tests $(BIN)/python tests/bench/soak.py

wheel: setup ## build a wheel and its sources in dist/; needs no checkout where it is installed
	@$(UV) build --quiet --no-build-isolation --python $(BIN)/python
	@ls -1 dist/*.whl dist/*.tar.gz

sbom: setup ## write what a release is made of to dist/: requirements with hashes, and CycloneDX
	@mkdir -p dist
	@$(UV) export --quiet --no-dev --no-emit-project --no-header --output-file dist/requirements.txt
	@$(UV) export --quiet --no-dev --format cyclonedx1.5 --preview-features sbom-export --output-file dist/sbom.cdx.json
	@ls -1 dist/requirements.txt dist/sbom.cdx.json

install: ## make this checkout the service ds-flow, or ds-flow-NAME, under PREFIX, or upgrade it; as root
	@systemd/install.sh install --name='$(NAME)' '$(PREFIX)' '$(SERVICE_USER)' '$(DROP_GROUP)'

uninstall: ## remove that service, but not settings, inputs, outputs and logs (unless PURGE=yes); as root
	@systemd/install.sh uninstall --name='$(NAME)' $(if $(PURGE),--purge) '$(PREFIX)'

services: setup ## list the services on this host
	@$(BIN)/ds-flow services

# Packages are installed here, so that the build needs no network.
image: setup ## build IMAGE, which runs every stage in Docker, on BASE
	@rm -rf build/image
	@version=$$($(DOCKER) run --rm --network none --entrypoint python3 $(BASE) \
	    -c 'import sys; print("{}.{}".format(*sys.version_info))') \
	    && $(UV) pip install --quiet --target build/image/packages --python-version "$$version" pandas pyarrow
	@rm -rf build/image/packages/{bin,*/tests,*/include,pyarrow/src}
	@$(DOCKER) build --quiet --network none --build-arg BASE=$(BASE) --tag $(IMAGE) \
	    --file flows/Dockerfile build/image

container: wheel ## build IMAGE=ds-flow-daemon, which runs the daemon itself, on BASE
	@rm -rf build/container && mkdir -p build/container
	@version=$$($(DOCKER) run --rm --network none --entrypoint python3 $(BASE) \
	    -c 'import sys; print("{}.{}".format(*sys.version_info))') \
	    && $(UV) pip install --quiet --target build/container/packages --python-version "$$version" \
	        "$$(ls -t dist/ds_flow-*.whl | head -n 1)"
	@rm -rf build/container/packages/{bin,*/tests,*/include,pyarrow/src}
	@cp container/ds-flow build/container/
	@$(DOCKER) build --quiet --network none --build-arg BASE=$(BASE) \
	    --tag $(if $(filter file,$(origin IMAGE)),ds-flow-daemon,$(IMAGE)) \
	    --file container/Dockerfile build/container

memory: setup ## measure the peak memory of hostile and very large inputs
	@PYTHONPATH=tests/support:tests $(BIN)/python -m bench.bench memory

crash: setup ## kill at every durable step in turn, start again, and look
	@PYTHONPATH=tests/faults:tests/support:tests $(BIN)/python -m chaos.crashpoints

power: setup ## lose what was not synced before every durable step in turn, start again, and look
	@PYTHONPATH=tests/faults:tests/support:tests $(BIN)/python -m chaos.powerloss

chaos: setup ## drop and break for CHAOS_MINUTES (2), as root; CHAOS_BACKEND: local, lsf, slurm, docker; SEED plays again
	@PYTHONPATH=tests/faults:tests/support:tests $(BIN)/python -m chaos

mutants: setup ## change the code at MUTANTS (150) random places and name what no test sees; SEED draws others
	@$(BIN)/python tests/bench/mutants.py

audit: ## compare all pinned versions with the public advisories; needs the network
	@$(UV) audit

lock: ## pin the newest versions that fit, in pyproject.toml
	@$(UV) run --no-project --quiet python .ci/lock.py
	@$(MAKE) setup

format: setup ## lay out the Python code and fix what ruff can fix
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

clean: ## remove everything that can be made again; out/ and log/ stay
	@rm -rf .venv .uv uv.lock build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
