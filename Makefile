# Everything starts here: `make` shows what there is. The first call makes the virtual environment.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Bytecode is kept, whatever the shell says: else every process, of which the tests start many, compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv demo test e2e compatibility properties check pure types rules golden manifests images bench requirements audit clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.ready ## make the virtual environment with everything in it

.venv/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "making the virtual environment (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## the whole story in under two minutes: a burst, every server killed, no failed request
	@$(BIN)/python -m demo

test: venv ## run every test (a real Envoy, API server and grpcurl): make test ARGS=--help
	@$(BIN)/python -m tests $(ARGS)

e2e: venv ## run the tests that need a Kubernetes node, which it starts (root on Linux): make e2e ARGS=-x
	@$(BIN)/python -m tests --node $(ARGS)

# What another version may refuse or answer otherwise: definitions, objects and their writes, both programs, the chart.
DIFFERS = tests/compatibility tests/chart $(wildcard tests/kube/test_crd*.py tests/kube/test_chart*.py \
  tests/kube/test_programs*.py tests/kube/test_store*.py tests/kube/test_takeover_programs.py) \
  tests/kube/test_check.py tests/kube/test_events.py tests/kube/test_gateway_service.py tests/kube/test_secrets.py
compatibility: venv ## try other versions, cert-manager, prometheus-adapter: make compatibility KUBERNETES=1.27.16 HELM=3.22.0 (or one of them)
	@set -e; versions="$(BIN)/python -m tests.tools.versions"; \
	  if [ -n "$(KUBERNETES)" ]; then KUBEBUILDER_ASSETS=$$($$versions kubernetes $(KUBERNETES)); export KUBEBUILDER_ASSETS; fi; \
	  if [ -n "$(HELM)" ]; then BEAMLIT_HELM=$$($$versions helm $(HELM)); export BEAMLIT_HELM; fi; \
	  $(BIN)/python -m tests $(or $(ARGS),$(DIFFERS))

check: venv ## format, lint, types, import rules, pure tests: about a minute
	@began=$$(date +%s); $(BIN)/ruff format --check . && $(BIN)/ruff check . && \
	  $(MAKE) --no-print-directory --jobs=3 pure types rules && echo "all is well after $$(($$(date +%s) - began)) s"

# At the same time: each alone would leave a processor idle.
pure:
	@$(BIN)/python -m pytest -q -p tests.support.workers --workers=2 -m "not long" tests/unit benchmarks/tests tests/timelines tests/golden

types:
	@$(BIN)/mypy

rules:
	@$(BIN)/lint-imports

# Each time with other examples; what one broke is printed, and becomes an @example of its test.
TIMES ?= 10
properties: venv ## search for what breaks a property, at random: make properties TIMES=100
	@set -e; for time in $$(seq $(TIMES)); do echo "time $$time of $(TIMES)"; \
	  $(BIN)/python -m pytest -q -p tests.support.workers --workers=2 -m hypothesis \
	    --hypothesis-profile=searching tests benchmarks/tests; done

golden: venv ## write the expectations of tests/golden anew; review them as a diff
	@$(BIN)/pytest -q tests/golden --rewrite-golden

manifests: venv ## write deploy anew: definitions, roles, parts of the chart from the registry; install.yaml from the chart
	@$(BIN)/python -m controller.install deploy
	@$(BIN)/python -m tests.support.chart

# Where images go, and what they are called there: as the chart has them.
BUILDER ?= docker
REGISTRY ?= ghcr.io/beamlit
TAG ?= $(shell sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$$/\1/p' deploy/chart/Chart.yaml)
# That of a package index may have a password: builders take it from the environment.
arguments = $(foreach name,$(1),$(if $($(name)),--build-arg=$(name)=$($(name))))
images: ## build both images: make images BUILDER=buildah PYTHON_IMAGE=python:3.13-slim@sha256:... ENVOY_DIGEST=sha256:...
	$(BUILDER) build $(BUILD_OPTIONS) $(call arguments,PYTHON_IMAGE) $(if $(PIP_INDEX_URL),--build-arg=PIP_INDEX_URL) \
	  --file=deploy/docker/Dockerfile --tag=$(REGISTRY)/beamlit-controller:$(TAG) .
	$(BUILDER) build $(BUILD_OPTIONS) $(call arguments,ENVOY_IMAGE ENVOY_TAG ENVOY_DIGEST) \
	  --build-arg=BEAMLIT_IMAGE=$(REGISTRY)/beamlit-controller:$(TAG) \
	  --file=deploy/docker/gateway.Dockerfile --tag=$(REGISTRY)/beamlit-gateway:$(TAG) .

bench: venv ## run a benchmark: make bench NAME=data_path; NAME=all: every one that has goals
	@test -n "$(NAME)" || { echo "which one? make bench NAME=..."; ls benchmarks/*.py | sed -n 's,benchmarks/\(.*\)\.py,  \1,p' | grep -v __; exit 2; }
	@$(BIN)/python -m benchmarks.$(NAME)

requirements: ## pin the newest versions of every dependency, with hashes
	@$(PYTHON) -m venv .venv/uv && .venv/uv/bin/pip install --quiet uv
	@.venv/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url requirements/audit.in -o requirements/audit.txt
	@for set in runtime dev; do \
	  .venv/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --no-emit-index-url $$(test $$set = dev && echo --all-extras) pyproject.toml \
	    -o requirements/$$set.txt; done

# In an environment of its own: none of it is needed for anything else.
.venv/audit/.ready: requirements/audit.txt
	@$(PYTHON) -m venv --clear --without-pip .venv/audit
	@$(BIN)/pip --python .venv/audit/bin/python install --quiet --disable-pip-version-check --no-compile \
	  --require-hashes -r requirements/audit.txt
	@touch $@

audit: venv .venv/audit/.ready ## known vulnerabilities of what is pinned, if a source of them answers; SBOM in dist/sbom.json
	@$(BIN)/python -m tests.tools.audit $(ARGS)

clean: ## remove what the other targets made here
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo/output
