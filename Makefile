# `make demo` and `make test` set everything up themselves: a virtual environment in .venv, mosquitto and strace from the
# system's packages. ARGS is handed on: make demo ARGS="--report report.json"

PYTHON := .venv/bin/python
SOAK_RUNS ?= 20
ARGS ?=

.PHONY: demo test check test-floor bench soak setup setup-test clean

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

bench: setup
	$(PYTHON) benchmarks/watch_splits.py $(ARGS)

# The in-memory protocol tests again and again, with other random cases each time.
soak: setup-test
	@for run in $$(seq $(SOAK_RUNS)); do \
	    seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); \
	    echo "soak: run $$run of $(SOAK_RUNS), --hypothesis-seed=$$seed"; \
	    $(PYTHON) -m pytest -q --durations=0 --durations-min=10 --hypothesis-seed=$$seed tests/protocol || exit 1; \
	done

setup:
	@tools/setup.sh mosquitto

setup-test:
	@tools/setup.sh mosquitto strace

clean:
	rm -rf .venv .setup build dist demo-report *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
