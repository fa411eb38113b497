# Every target sets itself up: `make train` on a fresh clone is enough.
SHELL  := /bin/bash
VENV   := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
CONFIG ?= tuned_configs/panda_sac.yaml
ARGS   ?=
SEAT   ?= operator

.DEFAULT_GOAL := help
.PHONY: help setup train seat test check clean

help:
	@echo 'make train   learn $(CONFIG); CONFIG=tuned_configs/panda_sac_state.yaml takes another,'
	@echo '             ARGS="run.seed=1 run.dir=runs/mine" overrides its values'
	@echo 'make test    the tests, without those that learn for minutes; ARGS goes to pytest'
	@echo 'make check   lint and type-check'
	@echo 'make seat    sit down as the operator of a run on a cluster: make seat HEAD=10.0.0.5'
	@echo 'make setup   only the set-up that each of the above does first: .venv, dependencies, OpenGL'
	@echo 'make clean   remove .venv and caches; runs/ stays'

train: $(VENV)/.ready
	$(PYTHON_IN_VENV) -m hil_rllib.train $(CONFIG) $(ARGS)

test: $(VENV)/.ready
	$(PYTHON_IN_VENV) -m pytest -m 'not slow' -ra $(ARGS)

# This machine takes the operator's runner of the cluster whose head is HEAD, and nothing else, until Ctrl-C;
# where the network fails it joins again.
# Of several operators, SEAT says which: operator_1, operator_2, … Ray's token, ~/.ray/auth_token, must be the head's.
seat: $(VENV)/.ready
	@test -n "$(HEAD)" || { echo 'error: say which cluster: make seat HEAD=address of its head'; exit 2; }
	trap 'exit 0' INT; until RAY_AUTH_MODE=token \
	$(VENV)/bin/ray start --block --address=$(HEAD):6379 --num-cpus=0 --resources='{"$(SEAT)": 1}'; do sleep 5; done

check: $(VENV)/.ready
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy

setup: $(VENV)/.ready

# Done once, and again when what it depends on has changed; the script itself touches the file when all is well.
$(VENV)/.ready: pyproject.toml constraints.txt hil_rllib/setup.sh
	bash hil_rllib/setup.sh $(VENV)

clean:
	rm -rf $(VENV) *.egg-info build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
