# Everything a user or CI runs. Each target creates .venv and installs into it what it needs.

# Left empty: what ./python.sh finds.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= conf/live.toml
SECONDS_ARGUMENT = $(if $(SECONDS),--seconds $(SECONDS))

.DEFAULT_GOAL := help
.PHONY: help demo run notebook check test format languages capabilities sim sim-long chaos soak sanitize bench bench-quick bench-micro bench-compare prod prod-status prod-stop clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.python: pyproject.toml python.sh
	@python='$(PYTHON)'; python=$${python:-$$(./python.sh)}; \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "feedhandler needs Python 3.11 or newer, and '$$python' is not one ($$($$python --version 2>&1 | head -1)). Try: make PYTHON=python3.12"; exit 1; }; \
	  test -x $(BIN)/python || $$python -m venv $(VENV)
	@touch $@

# Stamps, so that nothing is installed twice. With a C compiler the tick path is compiled; without one it is Python, and
# .pure is there: empty if there was no compiler, so that one which came since is a reason to install again.
$(if $(wildcard $(VENV)/.pure),$(shell test -s $(VENV)/.pure || ! ./compiler.sh $(BIN)/python || rm -f $(VENV)/.run $(VENV)/.pure))

# What is compiled, and what it is compiled with. An extension that is older than one of these is not imported.
COMPILED := $(shell find feedhandler -name '*.pxd' -o -name '*.pyx')
COMPILED += $(wildcard $(patsubst %.pxd,%.py,$(COMPILED)))

$(VENV)/.run: $(VENV)/.python setup.py $(COMPILED)
	@echo "installing feedhandler into $(VENV) (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@rm -f $(VENV)/.pure; $(BIN)/python -c 'import feedhandler; assert feedhandler.IS_COMPILED' 2>/dev/null || \
	  if ./compiler.sh $(BIN)/python; then echo failed > $(VENV)/.pure; \
	    echo "the tick path could not be compiled, and is Python, which costs more CPU; $(BIN)/pip install -v -e . tells why"; \
	  else : > $(VENV)/.pure; \
	    echo "the tick path is Python, which costs more CPU: with a C compiler and Python's headers (Debian: apt install gcc python3-dev) the next make compiles it"; fi
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "installing the test tools into $(VENV) (some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,third-party,bench]'
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	@echo "installing the bench's tools into $(VENV) (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

# It may fail to appear, with a notice: the bench then goes without cryptofeed.
.venv-cryptofeed/.ok: bench/install_cryptofeed.sh | $(VENV)/.python
	@bench/install_cryptofeed.sh .venv-cryptofeed $(BIN)/python

$(VENV)/.research: $(VENV)/.run
	@echo "installing what recordings are exported and read with into $(VENV) (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[research]'
	@touch $@

demo: $(VENV)/.run $(if $(RECORD),$(VENV)/.research) ## simulated exchanges, full pipeline, live table; SECONDS=20 to end by itself, RECORD=1 to record
	@$(BIN)/feedhandler demo $(SECONDS_ARGUMENT) $(if $(RECORD),--record)

run: $(VENV)/.run ## the same against the real exchanges (CONFIG=conf/live.toml)
	@$(BIN)/feedhandler run -c $(CONFIG) $(SECONDS_ARGUMENT)

$(VENV)/.notebook: $(VENV)/.run
	@echo "installing JupyterLab and what recordings are read with into $(VENV) (some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebook]'
	@touch $@

notebook: $(VENV)/.notebook ## docs/five-minutes.ipynb in JupyterLab: record, verify, export, plot, play again
	@$(BIN)/jupyter lab docs/five-minutes.ipynb

# Most of the time a test waits, as a rule for processes of its own: more workers than processors. 0: one after the
# other. Files go to workers in the order of tests/conftest.py.
WORKERS ?= 4
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGUMENTS)
# Else each of the hundreds of processes that tests start, and each worker, would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
define STATIC
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
endef

check: $(VENV)/.test ## before each commit: format, lint, types, all short tests (under a minute)
	$(STATIC)
	$(PYTEST) -m "not e2e and not long and not many and not world" --ignore tests/third_party \
	  --hypothesis-profile before-commit

# Without what was compiled: the hot path once more, as it runs where there is no compiler.
IN_PYTHON := $(addprefix tests/,client/test_subscribed_books.py data/test_book.py data/test_kept_book.py \
  data/test_raw.py exchanges feed/test_batch.py merger/test_merge.py recordings/test_segments.py \
  recordings/test_stored.py relay/test_relayed_books.py replay/test_streams.py transport/test_board_files.py \
  transport/test_follower.py transport/test_paced_outlet.py transport/test_queues.py transport/test_zmtp.py)

test: $(VENV)/.test ## everything CI runs: format, lint, types, all tests
	$(STATIC)
	$(PYTEST)
	FEEDHANDLER_PURE=1 $(PYTEST) $(IN_PYTHON)

SEEDS ?= 200
sim: $(VENV)/.test ## connections through a simulated world of faults: make sim SEEDS=2000 (some three seconds of a processor each)
	@$(BIN)/python tests/world.py --seeds $(SEEDS)

sim-long: ## the same for 10,000 worlds
	@$(MAKE) sim SEEDS=10000

CHAOS_ARGUMENTS = $(SECONDS_ARGUMENT) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) \
  $(if $(KILLS),--kills $(KILLS)) $(if $(QUIET),--quiet $(QUIET)) $(if $(ACT),--act "$(ACT)")
chaos: $(VENV)/.test ## real processes through seeded faults: make chaos SEED=7 SECONDS=120 (of load) RATE=300 KILLS=15 QUIET=600 (18 minutes in all)
	@$(BIN)/python tests/chaos $(CHAOS_ARGUMENTS)

soak: $(VENV)/.test ## recorded load; then recording, export and replay are held against what was sent: make soak MINUTES=5 RATE=150 (an hour)
	@$(BIN)/python tests/soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE))

FUZZ_SECONDS ?= 60
sanitize: $(VENV)/.test ## the compiled part under sanitizers: its tests, then a fuzz: make sanitize FUZZ_SECONDS=600 SEED=7 (4 minutes)
	@tests/fuzz/sanitize.sh --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.bench .venv-cryptofeed/.ok ## latency, cost, ceilings beside other libraries: about 25 minutes
	@$(BIN)/python -m bench $(BENCH_ARGUMENTS)

bench-quick: $(VENV)/.bench .venv-cryptofeed/.ok ## the same shape in three minutes; says less
	@$(BIN)/python -m bench --quick $(BENCH_ARGUMENTS)

bench-micro: $(VENV)/.bench ## nanoseconds of decode, pack, merge, unpack and the client's loop
	@$(BIN)/python -m pytest bench/micro --benchmark-only $(BENCH_ARGUMENTS)

# The two files are goals to make, and nothing to be done.
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
COMPARED := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(eval .PHONY: $(COMPARED))
$(eval $(COMPARED):;@:)
endif
bench-compare: $(VENV)/.bench ## two reports: make bench-compare bench-results/A.json bench-results/B.json
	@$(BIN)/python -m bench.compare $(COMPARED)

format: $(VENV)/.test ## format the code and sort its imports
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

languages: $(VENV)/.run ## after a change of the bytes: languages/ and the tables of docs/wire.md, from feedhandler/data/
	@$(BIN)/python languages/generate.py

capabilities: $(VENV)/.run ## after a change of what an exchange's file says it offers: the tables of docs/exchanges.md
	@$(BIN)/feedhandler capabilities --markdown docs/exchanges.md

prod: $(VENV)/.run ## start the real thing as a daemon (CONFIG=conf/live.toml)
	@$(BIN)/feedhandler prod start -c $(CONFIG)

prod-status: $(VENV)/.run ## processes, and what each exchange is doing
	@$(BIN)/feedhandler prod status -c $(CONFIG)

prod-stop: $(VENV)/.run ## stop the daemon and wait for its end
	@$(BIN)/feedhandler prod stop -c $(CONFIG)

clean: ## remove .venv, caches and run files
	rm -rf $(VENV) .venv-cryptofeed run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
