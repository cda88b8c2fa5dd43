# make demo, make test: all that they need is Python 3.11 or newer, make and git.
#   PYTHON=/path/to/python3   the interpreter that a new environment is made with
#   VENV=build/venv-3.13      the environment's folder, to have one for each Python
#   ARGS='-k demo -x'         more arguments for pytest, the benchmark, the soak test or the fuzzer

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
# Most tests wait for processes that they have started: three for each of two cores keep these busy.
JOBS ?= 6
ARGS ?=
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check install --quiet

# Debian has gearmand where the path of a plain user does not lead.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help demo test quick lint format bench soak fuzz docs clean

help:
	@echo 'make demo     job server, two workers and a web application, until Ctrl-C'
	@echo 'make test     the whole test suite'
	@echo 'make quick    the unit tests, but for those that try random input: no process, no socket, seconds'
	@echo 'make lint     ruff, mypy and bandit; make format writes what ruff would'
	@echo 'make bench    how fast, how large'
	@echo 'make soak     hours of jobs while things break'
	@echo 'make fuzz     random bytes for everything that reads bytes'
	@echo 'make docs     the documentation, in site/'
	@echo 'make clean    removes what these have made'

demo: $(VENV)/.has-package
	@$(PY) -m demo_app.demo

test: $(VENV)/.has-test
	@case "$${CI:-}" in '' | 0 | false) ;; *) command -v gearmand >/dev/null || \
		{ echo 'make test: CI is set, and gearmand is not on this machine' >&2; exit 1; };; esac
	@$(PY) -m pytest -n $(JOBS) --dist loadgroup $(ARGS); code=$$?; \
		command -v gearmand >/dev/null || \
		echo 'Left out: all tests on gearmand, which is not on this machine (Debian: gearman-job-server).' \
		'What ran, ran on the embedded job server alone.'; \
		command -v chromium >/dev/null || \
		echo 'Left out: the tests of the dashboard in a browser: chromium is not on this machine (Debian: chromium).'; \
		exit $$code

quick: $(VENV)/.has-test
	@$(PY) -m pytest -n 2 -q -m "not hypothesis" tests/unit $(ARGS)

lint: $(VENV)/.has-lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m bandit --quiet --configfile pyproject.toml --recursive gearwsgi demo_app gearman-server.py

format: $(VENV)/.has-lint
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.has-test
	$(PY) -m benchmarks $(ARGS)

soak: $(VENV)/.has-test
	$(PY) -m tests.soak $(ARGS)

fuzz: $(VENV)/.has-fuzz
	$(PY) -m tests.fuzz $(ARGS)

docs: $(VENV)/.has-docs
	$(PY) -m zensical build --clean --strict

clean:
	rm -rf .venv build dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up is done again when what is to be installed has changed. `--group` needs a recent pip.
$(PY):
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or newer was found; PYTHON=/path/to/python3 names one' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'

$(VENV)/.has-package: pyproject.toml | $(PY)
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.has-%: pyproject.toml | $(PY)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --editable . --group $*
	@touch $@
