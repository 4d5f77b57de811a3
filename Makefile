# Entry point for developers, hooks and CI. Every target installs its dependencies into .venv and rebuilds the extension when rust/
# has changed, so each of them works right after cloning.

PYTHON ?= python3
BENCH_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
SOAK_SECONDS ?= 600
PGO ?=
KILLS ?= 500
STORE_MIB ?= 1024
FUZZ_SECONDS ?= 60
GATEWAY ?=
RUNS ?= 3
WRITE ?=
SDK2 ?=
# `full` measures the queue up to ten million datapoints.
export GROWTH ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# cargo and the tests use all cores anyway, and two pips running in one environment would break it.
.NOTPARALLEL:

VENV := .venv
# All extras of the package, so that the tests cover them. Separated by spaces: a comma would end an argument of `call`.
EXTRAS := agent cli demo firmware http metrics otel proxy table
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Show the output of a command only if it fails.
quietly = output=$$($(1) 2>&1) || { echo "$$output" >&2; exit 1; }
# What the compiler learns from benches/training.py, for PGO=1.
PROFILE := $(CURDIR)/target/pgo/merged.profdata
# The fuzz targets are a separate workspace.
FUZZ_CRATE := --manifest-path rust/core/fuzz/Cargo.toml
# Use one interpreter for every build; otherwise cargo would recompile PyO3 for each of them.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# The tests start hundreds of programs. Without bytecode files, each of them would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

##@ Use

.PHONY: demo
demo: $(STAMPS)/native ## Send this machine's metrics and a million datapoints to the emulator (DEMO_ARGS="--host ..." for a server)
	@$(BIN)/python -m tb_mqtt_client.demo $(DEMO_ARGS)

.PHONY: wheel
wheel: $(STAMPS)/venv rust-toolchain $(if $(filter 1,$(PGO)),$(PROFILE)) ## Build the source distribution and a wheel for this platform into dist/ (PGO=1 trains the compiler first, GATEWAY=1 adds one for the IoT Gateway)
	@rm -rf dist && mkdir dist
	@$(FOR_WHEELS) $(if $(filter 1,$(PGO)),$(call with_profile,use=$(PROFILE))) \
	  $(BIN)/python tests/distribution/build_distributions.py $(if $(filter 1,$(PGO)),$(TRAINED),$(DISTRIBUTIONS)) --into dist
	$(if $(filter 1,$(GATEWAY)),@$(BIN)/python tests/distribution/gateway_wheel.py dist >/dev/null)
	@ls dist

.PHONY: docs
docs: $(STAMPS)/native $(STAMPS)/group-docs ## Build the guides and the API reference as HTML into docs/_build; broken references are errors
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -c docs . docs/_build
	@echo "docs/_build/docs/index.html"

##@ Check

.PHONY: test
test: $(STAMPS)/native $(STAMPS)/group-test programs $(if $(PYTEST_ARGS),,distributions) ## Run all tests: Rust, Python with the release build, wheels (PYTEST_ARGS="-k ..." skips the wheels)
	cargo test --workspace --quiet
	cargo test $(FUZZ_CRATE) --target-dir target --quiet
	$(if $(PYTEST_ARGS),,$(WITH_WHEELS)) $(BIN)/python -m pytest $(or $(PYTEST_ARGS),$(IN_PROCESSES))

# Most tests wait, so more processes than two cores. Idle ones take over tests of busy ones. With PYTEST_ARGS it is one process:
# a debugger and the output of a test need that.
IN_PROCESSES := -n 3 --dist worksteal

.PHONY: table-test
table-test: $(STAMPS)/native $(STAMPS)/group-test $(STAMPS)/group-tables ## Test with tables of polars, pandas and DuckDB, which take 300 MB
	$(BIN)/python -m pytest tests/native/test_table_libraries.py $(PYTEST_ARGS)

.PHONY: counts
counts: SYSTEM_PROGRAMS := valgrind
counts: $(STAMPS)/native programs ## Count the instructions of fixed workloads; fails if they are 3 % more than in benches/counts.json (WRITE=1 updates it)
	@$(BIN)/python benches/counts.py $(if $(filter 1,$(WRITE)),--write)

.PHONY: server-test
server-test: $(STAMPS)/native $(STAMPS)/group-test ## Test against a running ThingsBoard: TB_URL=http://host:8080 TB_MQTT=host:1883 (see docs/server_tests.md)
	$(BIN)/python -m pytest --thingsboard tests/server tests/contract $(PYTEST_ARGS)

.PHONY: wheel-test
wheel-test: distributions $(STAMPS)/group-test ## Test only the wheels, in clean environments of every Python found on this machine
	$(WITH_WHEELS) $(BIN)/python -m pytest tests/distribution

.PHONY: gateway-test
gateway-test: $(STAMPS)/group-test ## Test with the official IoT Gateway, which is installed from the package index
	@$(MAKE) --no-print-directory wheel GATEWAY=1
	GATEWAY_WHEEL="$$(echo $(CURDIR)/dist/*+core.*.whl)" $(BIN)/python -m pytest tests/gateway $(or $(PYTEST_ARGS),$(IN_PROCESSES))

.PHONY: gateway-speed
gateway-speed: $(STAMPS)/group-test ## Measure the official IoT Gateway on this package, on SDK 1.x and with a client that sends nothing (RUNS=1 is the short form)
	@$(MAKE) --no-print-directory wheel GATEWAY=1
	GATEWAY_WHEEL="$$(echo $(CURDIR)/dist/*+core.*.whl)" $(BIN)/python tests/gateway/speed.py --runs $(RUNS)

.PHONY: lint
lint: $(STAMPS)/native $(STAMPS)/group-test $(STAMPS)/group-lint ## Check formatting, lints and types of both languages, the stub, the workflow files and the docs
	cargo fmt --all --check
	cargo fmt $(FUZZ_CRATE) --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy $(FUZZ_CRATE) --target-dir target --all-targets --quiet -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases examples tests/typing
	MYPYPATH=python:tests $(BIN)/mypy --explicit-package-bases tests/thingsboard tests/contract/platforms.py
	@# Pyright looks for the package in the environment of the first python on PATH. Without the setting, it asks the index for its newest version.
	@$(call quietly,PATH="$(CURDIR)/$(BIN):$$PATH" PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --verifytypes tb_mqtt_client --ignoreexternal)
	MYPYPATH=python $(BIN)/stubtest tb_mqtt_client._native --mypy-config-file pyproject.toml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/zizmor --quiet --offline .github
	@# Last, because it takes longest (20 seconds).
	@$(MAKE) --no-print-directory docs

.PHONY: diagrams
diagrams: ## Draw the diagrams of the guides again after a change; needs npm
	@command -v npm >/dev/null || { echo "Drawing the diagrams needs npm, which comes with Node.js." >&2; exit 1; }
	@npm install --silent --no-save --prefix target/diagrams beautiful-mermaid@1.1.3
	@node docs/diagrams/render.mjs target/diagrams docs

.PHONY: fmt
fmt: $(STAMPS)/group-lint rust-toolchain ## Fix what the linters can fix
	cargo fmt --all
	cargo fmt $(FUZZ_CRATE)
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format --quiet

.PHONY: bench
bench: $(STAMPS)/native $(STAMPS)/group-test $(STAMPS)/group-bench programs peers ## Run the benchmarks (BENCH_ARGS="-k import" for some); WRITE=1 updates README.md and docs/performance.md; SDK2=path adds SDK 2.0
	@mkdir -p .benchmarks
	@# A row that fails, such as that of a peer that is not installed, must not hide the others.
	failed=0; $(BIN)/python -m pytest $(if $(findstring benches/,$(BENCH_ARGS)),,benches) $(BENCH_ARGS) \
	  --benchmark-json=.benchmarks/latest.json || failed=$$?; \
	$(BIN)/python benches/report.py .benchmarks/latest.json $(if $(filter 1,$(WRITE)),--write) && exit $$failed
	$(if $(filter 1,$(WRITE)),$(BIN)/python benches/pictures.py .benchmarks/latest.json docs/performance)

# Programs to compare with, each in an environment of its own: an SDK has modules with the names of this package, and the SDK 1.x brings
# its own build of paho-mqtt. A peer that cannot be installed is reported by its rows.
PEERS := $(VENV)/peers

.PHONY: peers
peers: $(STAMPS)/peer-sdk1 $(STAMPS)/peer-mqtt $(if $(SDK2),$(STAMPS)/peer-sdk2)

$(STAMPS)/peer-%: pyproject.toml | $(STAMPS)/venv
	@echo "Installing programs to compare with into $(PEERS)/$* ..."
	@rm -rf $(PEERS)/$* && $(PYTHON) -m venv --without-pip $(PEERS)/$*
	@$(PIP) --python $(PEERS)/$* install --group peer-$* $(if $(filter sdk2,$*),$(SDK2)) && touch $@ || { \
	  echo "It cannot be installed, so its rows will fail." >&2; rm -rf $(PEERS)/$*; }

# The flags that cargo-fuzz passes, without the sanitizers, which need a nightly compiler.
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares

.PHONY: fuzz
fuzz: rust-toolchain ## Run each fuzz target of the core for a minute (FUZZ_SECONDS=...); needs a C++ compiler
	@# With an explicit target, the flags do not apply to build scripts.
	@host=$$(rustc -vV | sed -n 's/^host: //p'); \
	for target in json numbers pack buckets store; do \
	  echo "Fuzzing $$target ..."; \
	  mkdir -p target/fuzz/corpus/$$target; \
	  RUSTFLAGS="$(COVERAGE) -Cdebug-assertions -Coverflow-checks" cargo run --quiet --release --target-dir target/fuzz \
	    --target $$host $(FUZZ_CRATE) --features link --bin $$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -artifact_prefix=target/fuzz/ target/fuzz/corpus/$$target; \
	done

.PHONY: soak
soak: $(STAMPS)/native ## Run ten minutes of random telemetry and faults (SOAK_SECONDS=...); checks totals on both sides and memory; STORE=1 keeps data on disk and restarts the client
	PYTHONPATH=tests $(BIN)/python tests/soak/run.py --seconds $(SOAK_SECONDS) $(if $(STORE),--store)

.PHONY: soak-kills
soak-kills: $(STAMPS)/native ## Kill devices and gateways with a store, KILLS=500 times for each durability; everything reported as safe has to arrive
	PYTHONPATH=tests $(BIN)/python tests/soak/kills.py --rounds $(KILLS)

.PHONY: soak-store
soak-store: $(STAMPS)/native ## Fill a store of STORE_MIB=1024, kill the program, and send all of it with another one; checks totals and memory
	PYTHONPATH=tests $(BIN)/python tests/soak/large_store.py --mebibytes $(STORE_MIB)

##@ Other

.PHONY: clean
clean: ## Remove everything that the targets above create
	@rm -rf $(VENV) target dist docs/_build .benchmarks .hypothesis .pytest_cache .mypy_cache .ruff_cache
	@rm -f python/tb_mqtt_client/_native*.so
	@find python tests benches examples -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The Python environment. A change of pyproject.toml updates everything in it.

$(STAMPS)/venv: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is required, but '$(PYTHON)' is older or not usable. Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Creating the Python environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@# Dependency groups need pip 25.1.
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | xargs $(PIP) install
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/group-%: pyproject.toml | $(STAMPS)/venv
	@echo "Installing the dependency group '$*' ..."
	@$(PIP) install --group $*
	@touch $@

# The extension is rebuilt after a change of a source file, of a folder (a file was added or removed), or of the built file itself,
# because a developer may have replaced it with another build, such as a debug build. Without a built file, the stamp is ignored.

RUST_SOURCES := $(shell find rust \( -name target -o -name fuzz \) -prune -o \( -type d -o -name '*.rs' -o -name Cargo.toml \) -print)
EXTENSION := $(wildcard python/tb_mqtt_client/_native*.so)

$(STAMPS)/native: pyproject.toml Cargo.toml $(wildcard Cargo.lock) $(RUST_SOURCES) $(EXTENSION) \
    $(if $(EXTENSION),,always) | $(STAMPS)/venv rust-toolchain
	@echo "Building the extension in release mode ..."
	@# Python would load a build for its own version before a build for all versions, however old it is.
	@rm -f $(EXTENSION)
	@$(call quietly,$(BIN)/maturin develop --release $(addprefix --extras=,$(EXTRAS)))
	@touch $@

.PHONY: always
always:

# The distributions for each kind of Python on this machine, and lists of the Pythons that were found and skipped. Cargo's build
# folders are kept there, so a second run takes seconds.

# Profile-guided optimization: a wheel that counts its branches is built and used with the data of benches/training.py, and the compiler
# reads the counts when it builds the wheel again. llvm-profdata must understand the format of rustc's LLVM. Only the crates of the
# workspace count, because all of them with whole-program optimization take a quarter of an hour.
TRAINED := $(CURDIR)/target/pgo/trained
with_profile = RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/distribution/rustc_with_profile.sh PROFILE_FLAG="-Cprofile-$(1)"
HOST = $$(rustc -vV | sed -n 's/^host: //p')
LLVM_VERSION = $$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

$(PROFILE): $(RUST_SOURCES) benches/training.py Cargo.toml Cargo.lock | $(STAMPS)/group-test rust-toolchain
	@merge=""; for tool in "$$(rustc --print sysroot)/lib/rustlib/$(HOST)/bin/llvm-profdata" "llvm-profdata-$(LLVM_VERSION)" \
	  "/usr/lib/llvm-$(LLVM_VERSION)/bin/llvm-profdata"; do \
	  if command -v "$$tool" >/dev/null; then merge=$$tool; break; fi; done; \
	[ -n "$$merge" ] || { \
	  echo "PGO=1 needs llvm-profdata of LLVM $(LLVM_VERSION): rustup component add llvm-tools, or the package llvm-$(LLVM_VERSION)." >&2; \
	  exit 1; }; \
	: "Cargo does not see that the flag has changed."; \
	rm -rf target/pgo && mkdir -p target/pgo/wheel; \
	echo "Building a wheel that counts ..."; \
	$(FOR_WHEELS) $(call with_profile,generate=$(CURDIR)/target/pgo/raw) \
	  $(BIN)/python tests/distribution/build_distributions.py target/pgo/counting --into target/pgo/wheel; \
	echo "Training ..."; \
	$(BIN)/python benches/training.py target/pgo/wheel/*.whl; \
	"$$merge" merge -o $@ target/pgo/raw

# Panic messages contain the source paths of crates. Remove cargo's directory from them, because it names the build machine's user.
FOR_WHEELS := RUSTFLAGS="$(RUSTFLAGS) --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=crates"
DISTRIBUTIONS := $(CURDIR)/target/distributions
WITH_WHEELS := DISTRIBUTIONS=$(DISTRIBUTIONS)

.PHONY: distributions
distributions: $(STAMPS)/venv rust-toolchain
	@echo "Building wheels for every Python on this machine ..."
	@$(FOR_WHEELS) $(BIN)/python tests/distribution/build_distributions.py $(DISTRIBUTIONS)

.PHONY: rust-toolchain
rust-toolchain:
	@command -v cargo >/dev/null || { \
	  echo "Rust is required to build the extension, but 'cargo' is not on PATH (see rust-version in Cargo.toml)." >&2; exit 1; }

# The broker for the tests and benchmarks; they need no other system package. Tests with further programs are skipped where these are
# missing; CI installs them: Prometheus loads the alert rules and the dashboard, and shells complete the command line.

SYSTEM_PROGRAMS := mosquitto $(if $(filter true,$(CI)),prometheus zsh fish)

.PHONY: programs
programs:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; missing=(); \
	for program in $(SYSTEM_PROGRAMS); do command -v $$program >/dev/null || missing+=($$program); done; \
	[ "$${#missing[@]}" = 0 ] && exit; \
	command -v apt-get >/dev/null || { \
	  echo "The tests and benchmarks need these programs; install them with your package manager: $${missing[*]}" >&2; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then as_root=(); \
	elif sudo -n true 2>/dev/null; then as_root=(sudo -n); \
	else echo "The tests and benchmarks need more programs; run: sudo apt-get install -y $${missing[*]}" >&2; exit 1; fi; \
	echo "Installing $${missing[*]} ..."; \
	install() { "$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" 2>&1; }; \
	output=$$(install) || { "$${as_root[@]}" apt-get update -qq && output=$$(install); } || { echo "$$output" >&2; exit 1; }; \
	: "The packages start system services, but the tests start their own processes."; \
	if [ -d /run/systemd/system ]; then \
	  for program in "$${missing[@]}"; do "$${as_root[@]}" systemctl disable --now --quiet $$program 2>/dev/null || true; done; \
	fi
