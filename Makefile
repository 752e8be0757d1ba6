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

.PHONY: help run env test test-rooms unit soak check generate lock kernel guest bench clean setup stop

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

run: guest ## Install what is needed, create a local VCH, run a container as proof
	@tools/run.sh "$(VCH)" "$(GUEST)"

env: ## Print the export lines a docker client needs: eval "$(make -s env)"
	@tools/env.sh "$(VCH)"

stop: ## Stop the daemons of the local VCH; containers run on
	@.venv/bin/vic-machine stop "$(VCH)"

setup: ## Install Debian packages and the virtual environment
	@tools/setup.sh

guest: setup ## Build kernel, initramfs and bootstrap.iso of the container VMs
	@tools/guest.sh "$(GUEST)"

kernel: setup ## Compile our own small kernel (15 CPU minutes, once); later guests use it
	@tools/setup.sh --kernel
	@$(PYTHON) -m imagebuild "$(GUEST)" --compile-kernel

# Tests of single rooms with real VMs, disks and network namespaces. They kill and confine on
# purpose and want a quiet machine, so they have a command of their own.
ROOMS := tests/contract tests/system/disks tests/system/network tests/system/test_tether.py tests/system/test_serial.py tests/system/test_portlayer.py

test: guest ## Run the tests: unit, then the docker CLI against a real VCH with real VMs
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -n 2 -m "not system and not slow" --reruns 2 tests
	@$(PYTHON) -m pytest -q -m "system and not slow" --reruns 2 $(addprefix --ignore=,$(ROOMS)) tests/system

test-rooms: guest ## Run the tests of hypervisor, disks, network, tether and port layer alone
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -m "system and not slow" --reruns 2 $(ROOMS)

unit: setup ## Run the unit tests only
	@$(PYTHON) -m pytest -q -n 2 -m "not system and not slow" --reruns 2 tests

soak: guest ## Run the long soak tests
	@tools/setup.sh --test
	@$(PYTHON) -m pytest -q -m slow tests

check: setup ## Lint, types, import graph, generated code
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@$(PYTHON) -m pytest -q tests/test_imports.py
	@$(PYTHON) tools/generate.py --check
	@$(PYTHON) -m tools.compatibility --check

generate: setup ## Generate the protobuf and gRPC modules and docs/api-compatibility.md
	@$(PYTHON) tools/generate.py
	@$(PYTHON) -m tools.compatibility

lock: setup ## Pin all Python packages anew
	@tools/lock.sh

bench: guest ## Measure, side by side with dockerd + runc
	@tools/setup.sh --bench
	@$(PYTHON) -m bench

clean: ## Remove the local VCH, the virtual environment and everything built
	@tools/clean.sh "$(VCH)"
