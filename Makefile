# `make demo` and `make test` each work as the first command after a clone.
# Prices for the demonstration can be given: make demo DEMO="--prices BTCUSDT_5m.csv.gz ETHUSDT_5m.csv.gz"
DEMO ?=
# Some faults alone, few of each, as JSON: make faults FAULTS="--small --json writer-killed"
FAULTS ?=
PYTHON_FILES = events exchange tests bench

.PHONY: demo test check soak faults bench compiled clean

demo: .venv/.ready
	.venv/bin/foldex demo $(DEMO)

# In two processes, since many tests wait for processes of their own.
test: check
	.venv/bin/pytest -n 2 --dist worksteal

check: .venv/.ready
	.venv/bin/ruff check $(PYTHON_FILES)
	.venv/bin/ruff format --check $(PYTHON_FILES)
	.venv/bin/mypy

# The random tests in full, on fresh chances where hypothesis draws them; `make test` runs 5 % of each. Flow
# commands, health sequences and pushing steps are per seed: flow has 20 seeds here, the others 4 always.
soak: .venv/.ready
	FOLDEX_HYPOTHESIS=soak FOLDEX_FLOW_SEEDS=20 FOLDEX_FLOW_COMMANDS=50000 FOLDEX_NAIVE_COMMANDS=200000 \
	FOLDEX_DETERMINISM_COMMANDS=100000 FOLDEX_MARGIN_ACCOUNTS=50000 FOLDEX_HEALTH_SEQUENCES=5000 \
	FOLDEX_PUSHING_STEPS=50000 FOLDEX_CAPTURED_LINES=100000 FOLDEX_BOOK_EVENTS=50000 FOLDEX_MUTATED_REQUESTS=100000 \
	FOLDEX_MUTATED_FRAMES=100000 FOLDEX_API_EXAMPLES=200 \
	.venv/bin/pytest -n 2 --dist worksteal -m soak -x -rP --durations=20

# Every fault in full count against real processes and servers; takes about a quarter of an hour.
faults: .venv/.ready
	.venv/bin/python -m tests.faults $(FAULTS)

bench: .venv/.ready
	.venv/bin/python -m bench.book
	.venv/bin/python -m bench.decide
	.venv/bin/python -m bench.scaling
	.venv/bin/python -m bench.pipeline
	.venv/bin/python -m bench.liquidator
	.venv/bin/foldex bench latency
	.venv/bin/foldex bench throughput
	.venv/bin/foldex bench throughput --api rest --in-flight 64
	.venv/bin/python -m bench.replay
	.venv/bin/python -m bench.streams

# The rules compiled by mypyc from the same sources, in .compiled: tests, speed, and the same bytes.
compiled: .venv/.ready
	sh scripts/compiled.sh

clean:
	rm -rf .venv .compiled build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.ready: pyproject.toml constraints.txt scripts/venv.sh
	sh scripts/venv.sh
	touch $@
