# Mooring: every container its own virtual machine, behind the ordinary Docker API.
# `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON := .venv/bin/python
# protoc finds its mypy plug-in there
export PATH := $(CURDIR)/.venv/bin:$(PATH)
VCH ?= mooring
GUEST := build/guest

.PHONY: help run env test test-lab test-clients sidebyside unit soak check evidence generate lock kernel guest lab bench clean preflight setup stop

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

run: preflight guest ## Install what is needed, create a local VCH, run a container as proof
	@tools/run.sh "$(VCH)" "$(GUEST)"

env: ## Print the export lines a docker client needs: eval "$(make -s env)"
	@tools/env.sh "$(VCH)"

stop: ## Stop the daemons of the local VCH; containers run on
	@[[ -x .venv/bin/vic-machine ]] || { echo "stop: nothing is installed here yet: make run" >&2; exit 1; }
	@.venv/bin/vic-machine stop "$(VCH)"

preflight:
	@tools/preflight.sh

setup: ## Install Debian packages and the virtual environment
	@tools/setup.sh

guest: setup ## Build kernel, initramfs and bootstrap.iso of the container VMs
	@tools/guest.sh "$(GUEST)"

kernel: setup ## Compile our own small kernel (15 CPU minutes, once); later guests use it
	@tools/setup.sh --kernel
	@$(PYTHON) -m imagebuild "$(GUEST)" --compile-kernel

test: guest ## Run the tests: unit, then the rooms and the docker CLI with real VMs
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -n 2 -rR -m "not system and not slow and not lab" --reruns 2 --ignore=tests/lab tests
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -rR -m "system and not slow" --reruns 2 tests/contract tests/system
	@$(MAKE) --no-print-directory test-lab
	@$(MAKE) --no-print-directory test-clients

unit: setup ## Run the unit tests only
	@$(PYTHON) -m pytest -q -n 2 -rR -m "not system and not slow and not lab" --reruns 2 --ignore=tests/lab tests

soak: guest ## Run the long soak tests
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -m slow tests

lab: ## Start the vSphere lab (a simulated vCenter that boots QEMU); LAB="-qemu=false …" are its options
	@tools/setup.sh --lab
	@"$$(tools/lab.sh)" $(LAB)

test-clients: guest ## Run docker-py, aiodocker, testcontainers, dockerode, compose and ssh against a VCH
	@tools/setup.sh --test
	@tools/clients.sh
	@$(PYTHON) -m pytest -q -rR -m "not slow" --reruns 2 tests/clients tests/sidebyside

sidebyside: guest ## Run one script of docker commands on dockerd and on Mooring; write docs/differences.md
	@tools/setup.sh --bench
	@$(PYTHON) -m tests.sidebyside dockerd
	@$(PYTHON) -m tests.sidebyside mooring
	@$(PYTHON) -m tools.differences

# what of the spine makes sense on vSphere: no shared host paths, no checkpoints
SPINE := tests/system/test_run.py tests/system/test_life_cycle.py tests/system/test_volumes_and_networks.py

test-lab: guest ## Run the tests of the vSphere lab, and those of the vSphere back end in it
	@tools/setup.sh --lab
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -rR -m "not slow" --reruns 2 tests/lab tests/vsphere
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -rR -m "not slow" --reruns 2 --hypervisor vsphere tests/contract $(SPINE)

check: setup ## Lint, types, import graph, generated code
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@$(PYTHON) -m pytest -q tests/test_imports.py
	@$(PYTHON) tools/generate.py --check
	@$(PYTHON) -m tools.compatibility --check
	@$(PYTHON) -m tools.differences --check

evidence: guest ## Run the API's tests and note which of them shows what: docs/api-evidence.json
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -n 2 -m "not system and not slow" --reruns 2 --evidence docs/api-evidence.json tests/engine
	@$(PYTHON) -m pytest -q -m "system and not slow" --reruns 2 --evidence docs/api-evidence.json tests/system
	@$(PYTHON) -m tools.compatibility --strict

generate: setup ## Generate the protobuf and gRPC modules and docs/api-compatibility.md
	@$(PYTHON) tools/generate.py
	@$(PYTHON) -m tools.compatibility
	@$(PYTHON) -m tools.differences

lock: setup ## Pin all Python packages anew
	@tools/lock.sh

bench: guest ## Measure, side by side with dockerd + runc
	@tools/setup.sh --bench
	@$(PYTHON) -m bench

clean: ## Remove the local VCH, the virtual environment and everything built
	@tools/clean.sh "$(VCH)"
