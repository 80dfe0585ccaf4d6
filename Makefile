# `make demo` and `make test` set everything up themselves: a virtual environment in .venv, mosquitto and strace from the
# system's packages. ARGS is handed on: make demo ARGS="turbines --report report.json"

PYTHON := .venv/bin/python
ROUNDS ?= 20000
FIRST_SEED ?= 0
ARGS ?=

.PHONY: demo test check test-floor bench soak mutants setup setup-test clean

demo: setup
	@.venv/bin/hushfleet demo $(ARGS)

test: check
	$(PYTHON) -m pytest
	@$(MAKE) --no-print-directory test-floor

check: setup-test
	.venv/bin/ruff check
	$(PYTHON) -m mypy

# The unit and protocol tests on the oldest versions of the agent's dependencies.
test-floor:
	@tools/floor.sh

# All benchmarks; figures in build/benchmarks.json. make bench ARGS="--only large_round --json figures.json"
bench: setup
	@$(PYTHON) -c 'import sklearn' 2>/dev/null || $(PYTHON) -m pip install -q --no-input --disable-pip-version-check -e '.[bench]'
	@$(PYTHON) benchmarks/run.py $(ARGS)

# make soak ROUNDS=…  simulated fleets with every fault until so many rounds have ended, on every core; FIRST_SEED goes on
#                     from an earlier run
# make soak KILLS=…   as many random SIGKILLs of a real fleet over a real broker; SEED repeats a schedule
# make soak ACKS=…    a real fleet under strace until as many acknowledgements have left, each after its sync
soak: setup-test
ifdef KILLS
	$(PYTHON) tests/integration/kills.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))
else ifdef ACKS
	$(PYTHON) tests/integration/acknowledgements.py --acknowledgements $(ACKS)
else
	$(PYTHON) tests/protocol/swarm.py --rounds $(ROUNDS) --first-seed $(FIRST_SEED)
endif

# Small faults put into the code one at a time, which the tests must notice. ARGS names parts of tools/mutants.toml.
mutants: setup-test
	@tools/mutants.sh $(ARGS)

setup:
	@tools/setup.sh mosquitto

setup-test:
	@tools/setup.sh mosquitto strace

clean:
	rm -rf .venv .setup build dist demo-report *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
