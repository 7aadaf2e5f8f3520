# Every step of development and of the demo. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
RUN := $(UV) run --locked --no-sync
export PYTHONWARNINGS :=
export PDC_CACHE ?= $(CURDIR)/.cache
# Tests mostly wait, so several processes share two cores. For the cluster tests each has a control plane of its own; a
# cluster that KUBECONFIG names for tests serves one process only.
SIDE_BY_SIDE ?= -n 2
CLUSTERS ?= $(if $(KUBECONFIG),-n 0,-n 3)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(UV):
	python3 -m venv .tools/uv && .tools/uv/bin/pip install --quiet uv==0.13.9

.PHONY: install
install: .venv/installed ## make the environment, from the lock file

.venv/installed: uv.lock pyproject.toml proto/pyproject.toml worker/pyproject.toml operator/pyproject.toml | $(UV)
	$(UV) sync --locked --compile-bytecode --quiet
	@touch $@

.PHONY: proto
proto: install ## generate the wire types again
	$(RUN) scripts/generate_proto.sh

.PHONY: lint
lint: install
	$(RUN) ruff check .
	$(RUN) ruff format --check .

.PHONY: format
format: install ## put the code into its form
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

.PHONY: typecheck
typecheck: install
	$(RUN) mypy

.PHONY: imports
imports: install
	$(RUN) lint-imports

.PHONY: proto-check
proto-check: proto
	git diff --exit-code -- proto/src

.PHONY: crds
crds: install ## make the CustomResourceDefinitions and docs/manifest.md from the typed model
	$(RUN) python -m pdcluster_operator.crd.generate .

.PHONY: crds-check
crds-check: crds
	git diff --exit-code -- manifests/crd charts/pdcluster/definitions docs/manifest.md

.PHONY: chart
chart: install ## make the chart's README, and manifests/install from the chart
	$(RUN) python scripts/chart_readme.py
	$$($(RUN) python tests/support/cluster_binaries.py helm) template pdcluster charts/pdcluster --namespace pdcluster-system \
		--skip-tests > manifests/install/operator.yaml

.PHONY: check
check: lint typecheck imports proto-check crds-check ## everything but the tests: style, types, layers, generated code

.PHONY: model
model: install ## fetch the demo's chat model (93 MB) into the cache
	@$(RUN) python scripts/fetch_demo_model.py $(PDC_CACHE)/models

.PHONY: demo
demo: install model ## a router, two prefill and two decode workers here, and one answer of a real chat model
	@$(RUN) python scripts/demo.py

.PHONY: test
test: test-local test-cluster ## all tests; the first time it builds a real control plane (about 15 minutes)

.PHONY: test-local
test-local: install model ## those that need no control plane
	$(RUN) pytest $(SIDE_BY_SIDE) --dist loadscope

.PHONY: sandbox
sandbox:
	@command -v bwrap >/dev/null || { apt-get update -qq && apt-get install -y -qq bubblewrap; } >&2 \
		|| { echo "the end-to-end tests need bubblewrap (bwrap): install it and run this again" >&2; exit 1; }

.PHONY: cluster-tools
cluster-tools: install sandbox ## the programs of a real control plane, found or built once (about 15 minutes)
	@$(RUN) python tests/support/cluster_binaries.py --go >/dev/null 2>&1 || $(UV) sync --locked --inexact --group cluster
	@$(RUN) python tests/support/cluster_binaries.py

.PHONY: test-cluster
test-cluster: cluster-tools ## tests against a real API server, with pods that KWOK plays or that run as processes here
	$(RUN) pytest -m cluster $(CLUSTERS) --dist loadgroup --no-loadscope-reorder tests/e2e tests/cluster

.PHONY: snapshot
snapshot: cluster-tools ## of this release, for the tests of upgrades from it (once for each release)
	@$(RUN) python tests/upgrade/make_snapshot.py

.PHONY: test-storm
test-storm: install ## 300 requests through a minute of deaths, pauses and broken links
	$(RUN) pytest -m storm tests/integration

.PHONY: test-kill
test-kill: cluster-tools ## the operator killed at every mutating call, before and after it (half an hour)
	PDC_KILL=all $(RUN) pytest -m cluster $(CLUSTERS) tests/cluster/test_kill.py

.PHONY: bench-cpu
bench-cpu: install ## CPU speed against the arithmetic bound of the same run
	@$(RUN) python tests/bench/bench_cpu.py

.PHONY: bench-prepare
bench-prepare: install ## requests/s through preparation, reservation and hand-off
	@$(RUN) python tests/bench/bench_prepare.py

.PHONY: bench-starved
bench-starved: install ## what one bad decode worker of four costs
	@$(RUN) python tests/bench/bench_starved.py

.PHONY: bench-seed
bench-seed: install ## the seed's workload on simulated H100s, prepared in four ways (12 GB of memory)
	@$(RUN) python tests/bench/bench_seed.py

.PHONY: bench-transfer
bench-transfer: install ## KV transfer against raw NIXL, and how much of it prefill hides
	@$(RUN) python tests/bench/bench_transfer.py

.PHONY: bench-stream
bench-stream: install ## streamed tokens/s to 256 HTTP clients, and to a router's stream
	@$(RUN) python tests/bench/bench_stream.py

.PHONY: bench-step
bench-step: install ## the scheduler alone, per step
	@$(RUN) python tests/bench/bench_step.py

.PHONY: bench-operator
bench-operator: cluster-tools ## the operator with 1,000 PDClusters on a real API server (20 minutes, 8 GB of memory)
	@$(RUN) python tests/bench/bench_operator.py

.PHONY: bench
bench: install cluster-tools ## every benchmark, and tests/bench/RESULTS.md from them (an hour)
	@$(RUN) python tests/bench/results.py

.PHONY: clean
clean: ## remove environments, caches and downloads
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
