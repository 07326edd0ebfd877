# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Everything that is installed, built or cached lies in .cache; `make clean` removes it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(CURDIR)/.cache
VENV := $(CACHE)/venv
COLLECTION := $(CACHE)/collections/ansible_collections/wcow/snapshotter
REPORT := $(CACHE)/report
LANES := lint unit contract reliability integration peers sanity
LONG_LANES := faults molecule browser
PYTEST := pytest -n 2

export PATH := $(VENV)/bin:$(PATH)
# ansible-core refuses to start in a locale that is not UTF-8.
export LC_ALL := C.UTF-8
export ANSIBLE_HOME := $(CACHE)/ansible
export ANSIBLE_REMOTE_TEMP := $(CACHE)/ansible/tmp
export ANSIBLE_COLLECTIONS_PATH := $(CACHE)/collections
export ANSIBLE_GALAXY_CACHE_DIR := $(CACHE)/ansible/galaxy
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export PIP_CACHE_DIR := $(CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv build demo test test-long account wine fuzz test-pythons test-ansibles bench clean $(LANES) $(LONG_LANES)

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 15

# -- setting up ---------------------------------------------------------------

venv: $(VENV)/test.stamp $(CACHE)/dev ## Install all tools into .cache/venv

# Debian takes the pip module apart from Python; ensurepip is what a venv lacks there.
$(VENV)/bin/python:
	@for python in $${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $$python -c 'import ensurepip' || { echo "$$python has no ensurepip; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	    echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; echo "No Python 3.11 or newer on PATH. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1

$(VENV)/demo.stamp: tests/requirements/demo.txt | $(VENV)/bin/python
	python -m pip install --quiet -r $<
	@touch $@

$(VENV)/test.stamp: tests/requirements/test.txt tests/requirements/core.txt $(VENV)/demo.stamp
	python -m pip install --quiet -r $<
	@touch $@

# Tests import the checkout itself under the name that Ansible gives to the collection.
$(CACHE)/dev:
	mkdir -p $@/ansible_collections/wcow
	ln -sfn ../../../.. $@/ansible_collections/wcow/snapshotter

build: $(COLLECTION)/MANIFEST.json ## Build the collection and install the artefact into .cache/collections

$(COLLECTION)/MANIFEST.json: $(wildcard $(shell git ls-files -co --exclude-standard)) | $(VENV)/demo.stamp
	rm -rf $(CACHE)/build
	ansible-galaxy collection build --output-path $(CACHE)/build
	ansible-galaxy collection install --offline --force -p $(CACHE)/collections $(CACHE)/build/*.tar.gz
	@touch $@

# -- what people run ----------------------------------------------------------

demo: build ## The life of a snapshot on three lab nodes: once, again (nothing changes), and its removal
	@trap 'python -m lab down' EXIT; \
	export ANSIBLE_CALLBACK_RESULT_FORMAT=yaml; \
	play() { echo; echo "== $$1"; shift; ansible-playbook -i .lab/inventory.yml playbooks/demo.yml "$$@"; }; \
	python -m lab up --nodes 3; \
	play "First run: everything is made" --skip-tags remove; \
	play "Second run: nothing is left to do" --skip-tags remove | tee $(CACHE)/demo.log; \
	if grep -q 'changed=[1-9]' $(CACHE)/demo.log; then echo "The second run changed something." >&2; exit 1; fi; \
	play "Third run: everything is removed" --tags remove

test: venv ## Run all lanes and say what ran and what was skipped (WCOW_REQUIRE_ALL=1: a skip is a failure)
	@$(MAKE) --no-print-directory account NAME="make test" RUN="$(LANES)"
	@echo "Not run here: make test-long ($(LONG_LANES)), make wine, make test-pythons, make test-ansibles, make bench"

test-long: venv ## The lanes that take longer: each network fault, each role with molecule, the report in a browser
	@$(MAKE) --no-print-directory account NAME="make test-long" RUN="$(LONG_LANES)"

account: # Runs the lanes RUN, each whatever became of the others, and adds up what they did.
	@rm -f $(REPORT); failed=""; \
	for lane in $(RUN); do $(MAKE) --no-print-directory $$lane || failed="$$failed $$lane"; done; \
	echo; echo "== $(NAME)"; grep -v ^figure $(REPORT); \
	awk '/^figure /{n = $$2; for (i = 3; i < NF; i++) n = n " " $$i; sum[n] += $$NF} \
	  END {for (n in sum) printf "  tried: %s %d\n", n, sum[n]}' $(REPORT) | sort; \
	awk '/ passed, /{p += $$2; f += $$4; s += $$6} END {printf "%d passed, %d failed, %d skipped\n", p, f, s}' $(REPORT); \
	if [ -n "$$failed" ]; then echo "Lanes that failed:$$failed" >&2; exit 1; fi

# -- lanes --------------------------------------------------------------------

lint: venv build ## ruff, mypy --strict, yamllint, ansible-lint, changelog, ansible-doc of every module
	ruff check
	ruff format --check
	mypy
	yamllint --strict .
	ansible-lint --offline --strict
	antsibull-changelog lint
	ansible-doc --type module $$(cd plugins/modules && printf 'wcow.snapshotter.%s ' $$(ls *.py | sed 's/\.py$$//')) >/dev/null
	ansible-doc --type callback wcow.snapshotter.progress >/dev/null
	@echo "lint: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

unit: venv ## Tests of each piece
	WCOW_REPORT=$(REPORT) $(PYTEST) tests/unit

contract: venv ## The snapshotter contract over each layer store
	WCOW_REPORT=$(REPORT) $(PYTEST) tests/contract

reliability: venv ## Kills, power cuts, races, full disks, hostile input: nothing lost, nothing leaked
	WCOW_REPORT=$(REPORT) $(PYTEST) --dist worksteal tests/reliability

integration: venv build ## ansible-playbook against lab nodes
	WCOW_REPORT=$(REPORT) $(PYTEST) --dist worksteal -m "not long" tests/integration

faults: venv build ## The long ones of those: connections that break at each request of each task, nodes that die
	WCOW_REPORT=$(REPORT) $(PYTEST) --dist worksteal -m long tests/integration

molecule: venv build ## Each role on lab nodes of its own: converge, again without a change, verify
	molecule test --all
	@echo "molecule: $(words $(wildcard extensions/molecule/*/molecule.yml)) passed, 0 failed, 0 skipped" >> $(REPORT)

browser: venv ## The report in Chromium: read, sorted, searched, attacked; pictures of it in .cache/report-browser
	WCOW_REPORT=$(REPORT) $(PYTEST) --dist loadfile tests/browser

peers: venv ## The same operations on containerd and on ours; qemu-img on our disks
	WCOW_REPORT=$(REPORT) $(PYTEST) tests/peers

sanity: venv ## ansible-test sanity and units, offline
	tests/run_sanity
	@echo "sanity: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

wine: venv build ## The core on Windows Python in a patched Wine, against stand-ins for the DLLs of Windows (Debian 12)
	WCOW_REPORT=$(CACHE)/report-wine $(PYTEST) --dist worksteal tests/wine

FUZZ := 10
fuzz: venv ## Look for cases that fail: those that are generated, others than in make test, FUZZ times over
	for round in $$(seq $(FUZZ)); do WCOW_FUZZ=1 $(PYTEST) -m hypothesis tests/unit tests/reliability || exit 1; done

test-pythons: $(VENV)/bin/python $(CACHE)/dev ## The tests of the core on every other Python that is installed, 3.9 to 3.14
	tests/run_pythons

test-ansibles: venv ## Plays with the oldest and the newest ansible-core that is supported
	tests/run_ansibles

bench: venv ## Measure; WCOW_BENCH_SMOKE=1 for a short run
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_metastore.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_wire.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_set.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_fleet.py

clean: ## Remove everything that make made
	rm -rf $(CACHE) .lab build
