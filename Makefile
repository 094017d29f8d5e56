# Needs Python 3.11 and make. Everything it installs goes into .venv and node_modules.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STRICT := msha units domains cutover
# Somebody who watches sees pip's progress; a log gets its errors alone. Used within a recipe's shell.
PIP_INSTALL = quiet=-qq; test ! -t 1 || quiet=; $(BIN)/python -m pip install --disable-pip-version-check $$quiet

.PHONY: help setup demo demo-reset test lint fmt fuzz fuzz-guided bench chaos replay machine coverage node-modules messages model

help:
	@echo 'make setup       prepare .venv'
	@echo 'make demo        everything on this machine: console, two edges, back-sources, clients'
	@echo 'make demo-reset  forget the state of the demo'
	@echo 'make test        lint, types and all tests'
	@echo 'make lint        ruff, import-linter, mypy'
	@echo 'make fmt         format the code'
	@echo 'make fuzz        try ever new hostile bytes on heads and frames; SECONDS=600 says how long'
	@echo 'make fuzz-guided the same, led by coverage; installs atheris'
	@echo 'make bench       how the edge compares with nginx and HAProxy; takes some minutes'
	@echo 'make chaos       200 cutovers under load while processes are killed, stopped and cut off; 25 minutes'
	@echo 'make model       search every state of small configurations; 10 minutes, 1 GB of memory'
	@echo 'make replay      one cutover under 2,000 live sessions, each of them watched'
	@echo 'make machine     ever new histories of a cutover on the real rows; EXAMPLES=200 says how many'
	@echo 'make coverage    the tests, with branch coverage'
	@echo 'make messages    bring the Chinese catalogue in step with the sources'

setup: .venv/.dev-stamp

# What the demo needs; the tools of the tests come on top in .dev-stamp.
.venv/.run-stamp: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'msha needs Python 3.11 or newer; say which one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'; exit 1; }
	@test -x $(BIN)/python || { echo 'making .venv, a few seconds'; $(PYTHON) -m venv .venv; }
	@echo "installing the $$(grep -c == requirements.txt) packages of requirements.txt, about a minute"
	@$(PIP_INSTALL) -r requirements.txt
	@echo 'installing msha itself, a few seconds'
	@$(BIN)/python -m pip install -qqq --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/.dev-stamp: .venv/.run-stamp requirements-dev.txt
	@echo "installing the $$(grep -c == requirements-dev.txt) packages of requirements-dev.txt, about a minute"
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

# Ctrl-C, or SIGTERM to make, stops it; SIGINT to make alone does not: make takes it for a Ctrl-C, which
# everybody gets, and waits.
demo: .venv/.run-stamp
	@exec $(BIN)/python -m msha.demo --with-parent

demo-reset: .venv/.run-stamp
	@$(BIN)/python -m msha.demo --reset

lint: .venv/.dev-stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy $(STRICT)

# The reference client and the browser tests; where npm is missing those tests skip, or fail if CI is set.
node-modules: tests/node_modules/.stamp

tests/node_modules/.stamp: tests/package.json
	@if command -v npm >/dev/null; then \
	  echo 'installing the packages of tests/package.json'; \
	  cd tests && npm install --no-package-lock --no-audit --no-fund --loglevel=error && touch node_modules/.stamp; \
	else echo 'npm is missing: tests that need Node packages will skip'; fi

# Most tests wait for other processes more than they compute, so three at a time are faster on two cores. The tests
# of a file stay together: they share its servers.
TEST_PROCESSES ?= 3
test: lint node-modules
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

# After a sentence was added or changed: then translate what it names, in locale/zh_Hans/LC_MESSAGES/django.po.
messages: .venv/.dev-stamp
	$(BIN)/python -m tests.support.messages

fmt: .venv/.dev-stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# What it finds it keeps in tests/edge/corpus, where it fails the tests until it is understood.
SECONDS ?= 60
fuzz: .venv/.dev-stamp
	$(BIN)/python -m tests.edge.fuzz.campaign --seconds $(SECONDS)

# Each kind of input gets a third of the time; what reaches new branches is learnt, in a directory of its own.
fuzz-guided: .venv/.dev-stamp
	@$(PIP_INSTALL) atheris==3.0.0
	@for kind in requests responses frames; do \
	  $(BIN)/python -m tests.edge.fuzz.guided $$kind --seconds $$(($(SECONDS) / 3)) --learnt .fuzz || exit 1; done

# Wants a quiet machine with two cores. BENCH='--only redirect --rounds 3' passes options: bench/README.md.
# The other candidates come from the system's packages, and so does the Python here, if the system has one: how an
# interpreter was compiled makes a fifth.
BENCH_PYTHON ?= $(or $(firstword $(wildcard $(addprefix /usr/bin/python3.,14 13 12 11))),$(PYTHON))

bench: bench/build/venv/.stamp
	@bench/build/venv/bin/python -m bench $(BENCH)

bench/build/venv/.stamp: .venv/.run-stamp
	@$(BENCH_PYTHON) -m venv --clear --without-pip bench/build/venv
	@echo 'installing the same packages for $(BENCH_PYTHON), about a minute'
	@$(BIN)/python -m pip --python bench/build/venv install -qq --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip --python bench/build/venv install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@

# CUTOVERS=20 SEED=7 FAULTS=redis-killed,partition SCRIPT=... CLIENTS=200 CONSOLES=2 EDGE_WORKERS=1 MINUTES=10
# DATABASE=postgres say what is done: decision 0076. What a campaign wrote down is kept when it found something.
chaos: .venv/.dev-stamp
	@exec $(BIN)/python -m tests.chaos.campaign --with-parent

# CLIENTS=300 is a smaller one.
replay: .venv/.dev-stamp
	@exec $(BIN)/python -m tests.chaos.replay --with-parent

# Ever other things that nodes, operators, jobs and clocks do to a cutover's rows. EXAMPLES says how many.
machine: .venv/.dev-stamp
	@dir=$$(mktemp -d); MACHINE_SEED=random MACHINE_EXAMPLES=$(or $(EXAMPLES),200) MSHA_DEBUG=1 MSHA_LOG_LEVEL=ERROR \
	  REDIS_URL= MSHA_DATABASE_URL=sqlite:///$$dir/machine.sqlite3 $(BIN)/python -m tests.cutover.machine; \
	  code=$$?; rm -rf $$dir; exit $$code

# MODEL='restarts chain' searches only these. `make test` searches the same ones with fewer faults.
model: .venv/.dev-stamp
	@$(BIN)/python -m tests.model $(MODEL)

# Branch coverage of what runs in the test process; the programs that integration tests start are not counted.
coverage: .venv/.dev-stamp node-modules
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report
