# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# All installed, built and cached files are in .cache. `make clean` removes them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(CURDIR)/.cache
VENV := $(CACHE)/venv
COLLECTION := $(CACHE)/collections/ansible_collections/wcow/snapshotter
REPORT := $(CACHE)/report
LANES := static unit contract reliability integration peers
LONG_LANES := faults others
# A test goes to the worker that has nothing to do. The slowest tests are printed, because each lane should stay fast.
PYTEST := tests/in_memory pytest --dist worksteal --durations 10 --durations-min 5
# Some tests mostly compute, others mostly wait.
COMPUTING := -n 2
WAITING := -n 3

export PATH := $(VENV)/bin:$(PATH)
# ansible-core does not start in a locale other than UTF-8.
export LC_ALL := C.UTF-8
export ANSIBLE_HOME := $(CACHE)/ansible
export ANSIBLE_REMOTE_TEMP := $(CACHE)/ansible/tmp
export ANSIBLE_COLLECTIONS_PATH := $(CACHE)/collections
export ANSIBLE_GALAXY_CACHE_DIR := $(CACHE)/ansible/galaxy
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export PIP_CACHE_DIR := $(CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv build demo test test-long account wine wine-kills fuzz test-pythons test-ansibles test-all-ansibles test-fresh bench release clean \
  $(LANES) $(LONG_LANES) lint sanity molecule browser docs

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

# -- setting up ---------------------------------------------------------------

venv: $(VENV)/test.stamp $(CACHE)/dev ## Install all tools into .cache/venv

# Debian packages ensurepip separately from Python. Without it, a venv has no pip.
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

# Tests import the checkout under the collection's Python package name.
$(CACHE)/dev:
	mkdir -p $@/ansible_collections/wcow
	ln -sfn ../../../.. $@/ansible_collections/wcow/snapshotter

build: $(COLLECTION)/MANIFEST.json ## Build the collection and install it into .cache/collections

$(COLLECTION)/MANIFEST.json: $(wildcard $(shell git ls-files -co --exclude-standard)) | $(VENV)/demo.stamp
	rm -rf $(CACHE)/build
	ansible-galaxy collection build --output-path $(CACHE)/build
	ansible-galaxy collection install --offline --force -p $(CACHE)/collections $(CACHE)/build/*.tar.gz
	@touch $@

# -- demo and tests -----------------------------------------------------------

demo: build $(CACHE)/dev ## Create and remove snapshots on three lab nodes; find and repair damage of containerd
	@trap 'python -m lab down' EXIT; \
	export ANSIBLE_CALLBACK_RESULT_FORMAT=yaml; \
	play() { echo; echo "== $$1"; shift; ansible-playbook -i .lab/inventory.yml playbooks/demo.yml "$$@"; }; \
	containerd() { echo; echo "== $$1"; shift; ansible-playbook -i .lab/inventory.yml wcow.snapshotter.$$1 \
	  -e wcow_store=containerd -e wcow_report=$(CACHE)/demo/report -e wcow_minimum_free=1MB; }; \
	python -m lab up --nodes 3 --containerd; \
	play "First run: everything is created" --skip-tags remove; \
	play "Second run: nothing changes" --skip-tags remove | tee $(CACHE)/demo.log; \
	if grep -q 'changed=[1-9]' $(CACHE)/demo.log; then echo "The second run changed something." >&2; exit 1; fi; \
	play "Third run: everything is removed" --tags remove; \
	echo; echo "== The containerd of node1 is damaged, as crashes do it"; \
	for kind in leftover orphan dangling-child; do python -m lab break node1 $$kind; done; \
	if containerd "An audit finds the damage" audit; then echo "The audit found nothing." >&2; exit 1; fi; \
	containerd "A repair, while containerd runs" maintenance; \
	containerd "A second audit finds nothing" audit

test: venv ## Run all lanes and show what ran and what was skipped (WCOW_REQUIRE_ALL=1: a skip is a failure)
	@$(MAKE) --no-print-directory account NAME="make test" RUN="$(LANES)"
	@echo "Not run here: make test-long ($(LONG_LANES)), make wine, make wine-kills, make test-pythons, make test-ansibles, make bench"

test-long: venv ## Run the long lanes: each network fault, each role with molecule, the report in a browser
	@$(MAKE) --no-print-directory account NAME="make test-long" RUN="$(LONG_LANES)"

account: # Runs the lanes in RUN and adds up their results and times. A lane also runs if an earlier one failed.
	@rm -f $(REPORT); failed=""; times=""; \
	for lane in $(RUN); do \
	  begin=$$SECONDS; $(MAKE) --no-print-directory $$lane || failed="$$failed $$lane"; \
	  times="$$times, $$lane $$((SECONDS - begin)) s"; \
	done; \
	echo; echo "== $(NAME)"; grep -v ^figure $(REPORT); \
	awk '/^figure /{n = $$2; for (i = 3; i < NF; i++) n = n " " $$i; sum[n] += $$NF} \
	  END {for (n in sum) printf "  tried: %s %d\n", n, sum[n]}' $(REPORT) | sort; \
	awk '/ passed, /{p += $$2; f += $$4; s += $$6} END {printf "%d passed, %d failed, %d skipped\n", p, f, s}' $(REPORT); \
	echo "Time: $$SECONDS s ($${times#, })"; \
	if [ -n "$$failed" ]; then echo "Lanes that failed:$$failed" >&2; exit 1; fi

# -- lanes --------------------------------------------------------------------

static: venv build ## Run lint and sanity side by side
	@$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync sanity $(LINTS)
	@echo "lint: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

lint: venv build ## Run ruff, mypy --strict, yamllint, ansible-lint, changelog, REUSE, prose, documentation, galaxy-importer
	@$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync $(LINTS)
	@echo "lint: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

# The slow ones begin first.
LINTS := lint-ansible lint-artefact lint-prose lint-documentation lint-code lint-files
.PHONY: $(LINTS)

lint-ansible:
	ansible-lint --offline --strict

lint-artefact:
	python tests/publish/importer.py --repository https://example.invalid/wcow.snapshotter $(CACHE)/build/*.tar.gz

lint-prose:
	python tests/prose/check.py

lint-documentation:
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs all --disallow-unknown-collection-refs \
	  --check-extra-docs-refs .
	ansible-doc --type module $$(cd plugins/modules && printf 'wcow.snapshotter.%s ' $$(ls *.py | sed 's/\.py$$//')) >/dev/null
	ansible-doc --type callback wcow.snapshotter.progress >/dev/null

lint-code:
	ruff check
	ruff format --check
	mypy

lint-files:
	yamllint --strict .
	antsibull-changelog lint
	reuse lint --quiet || reuse lint
	pytest --quiet tests/prose tests/publish

unit: venv ## Run the unit tests
	WCOW_REPORT=$(REPORT) $(PYTEST) $(WAITING) tests/unit

contract: venv ## Test the snapshotter contract on each layer store
	WCOW_REPORT=$(REPORT) $(PYTEST) $(COMPUTING) tests/contract

reliability: venv ## Test kills, power cuts, races, full disks and hostile input: nothing is lost or leaked
	WCOW_REPORT=$(REPORT) $(PYTEST) $(WAITING) -m "not long" tests/reliability

integration: venv build ## Run ansible-playbook against lab nodes
	WCOW_REPORT=$(REPORT) $(PYTEST) $(COMPUTING) -m "not long" tests/integration

faults: venv build ## Run the long tests: broken connections at each request, nodes that die, more kills of containerd
	WCOW_REPORT=$(REPORT) $(PYTEST) $(COMPUTING) -m long tests/integration tests/peers tests/reliability

others: venv build ## Run molecule, browser and docs side by side, because none of them uses both cores
	@$(MAKE) --no-print-directory --keep-going --jobs 3 --output-sync molecule browser docs

molecule: venv build ## Test each role on its own lab nodes: converge, idempotence, verify
	tests/in_memory molecule test --all
	@echo "molecule: $(words $(wildcard extensions/molecule/*/molecule.yml)) passed, 0 failed, 0 skipped" >> $(REPORT)

browser: venv ## Test the report in Chromium; pictures of it are in .cache/report-browser
	WCOW_REPORT=$(REPORT) $(PYTEST) $(COMPUTING) --dist loadfile tests/browser

docs: venv build ## Build the documentation site into .cache/docs/html, without a warning
	tests/build_docs
	@echo "docs: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

peers: venv ## Compare with containerd, pull through CRI, and check disks with qemu-img
	WCOW_REPORT=$(REPORT) $(PYTEST) $(WAITING) -m "not long" tests/peers

sanity: venv ## Run ansible-test sanity, and collect the unit tests with ansible-test units, offline
	tests/run_sanity
	@echo "sanity: 1 passed, 0 failed, 0 skipped" >> $(REPORT)

wine: venv build ## Test the core on Windows Python in a patched Wine, with stand-ins for Windows DLLs (Debian 12)
	WCOW_REPORT=$(CACHE)/report-wine $(PYTEST) $(COMPUTING) -m "not long" tests/wine

wine-kills: venv build ## Kill the proxy snapshotter in Wine at every failpoint of every call
	WCOW_REPORT=$(CACHE)/report-wine $(PYTEST) $(COMPUTING) -m long tests/wine

FUZZ := 10
fuzz: venv ## Repeat the tests with generated cases FUZZ times, with different cases each time
	for round in $$(seq $(FUZZ)); do WCOW_FUZZ=1 $(PYTEST) $(COMPUTING) -m hypothesis tests/unit tests/reliability || exit 1; done

PYTHONS := 3.9 3.10 3.11 3.12 3.13 3.14
test-pythons: $(VENV)/bin/python $(CACHE)/dev ## Test the core on every other installed Python in PYTHONS
	tests/run_pythons $(PYTHONS)

test-ansibles: venv ## Run plays with the oldest and the newest supported ansible-core
	tests/run_ansibles

test-all-ansibles: venv ## Run sanity and plays with every supported ansible-core
	tests/run_ansibles all

bench: venv ## Run the benchmarks (WCOW_BENCH_SMOKE=1: a short run)
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_metastore.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_go.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_serve.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_containerd.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_containerd_api.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_wire.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_set.py
	PYTHONPATH=$(CACHE)/dev python tests/benchmarks/bench_fleet.py

FRESH := "make demo" "make test"
test-fresh: $(VENV)/bin/python ## Run the demo and all lanes in a minimal Debian, as root (FRESH='"make demo"': other commands)
	tests/run_fresh $(FRESH)

# -- publishing ---------------------------------------------------------------

# Exported, because the values come from the command line and must not become shell code.
export REPOSITORY VERSION ISSUES DOCUMENTATION CONTACT
release: venv ## Make a release: REPOSITORY=https://... VERSION=1.0.0, also ISSUES, DOCUMENTATION, CONTACT
	@: "$${REPOSITORY:?make release needs REPOSITORY=https://...}" "$${VERSION:?make release needs VERSION=1.0.0}"
	@python tests/publish/release.py --repository "$$REPOSITORY" --version "$$VERSION" --issues "$${ISSUES:-}" \
	  --documentation "$${DOCUMENTATION:-}" --contact "$${CONTACT:-}"
	antsibull-changelog release --version "$$VERSION"
	ansible-galaxy collection build --force --output-path $(CACHE)/release
	python tests/publish/importer.py "$(CACHE)/release/wcow-snapshotter-$$VERSION.tar.gz"
	@echo; echo "Version $$VERSION is in the work tree and in this artefact:"; \
	sha256sum "$(CACHE)/release/wcow-snapshotter-$$VERSION.tar.gz" | sed 's/^/  /'; \
	echo "Read the changes (git diff), then publish:"; \
	echo "  git add --all && git commit -m 'Release $$VERSION' && git tag $$VERSION"; \
	echo "  git push $$REPOSITORY HEAD $$VERSION"; \
	echo "  ansible-galaxy collection publish $(CACHE)/release/wcow-snapshotter-$$VERSION.tar.gz"

clean: ## Remove everything that make created
	rm -rf $(CACHE) .lab build
