# `make run` and `make test` install their dependencies (apt-get, PyPI) first; `make help` lists all
# targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build plugin command wheel deb run fleet test quick arm bench pair mutants soak check semver install uninstall clean

ifeq (,$(shell command -v cargo))
export PATH := $(PATH):$(HOME)/.cargo/bin
endif
CARGO ?= cargo
UWSGI ?= $(or $(UWSGI_BIN),uwsgi)
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
# a separate directory: a build with other features would replace the library
COMMAND := $(TARGET)/command

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
# `plugin = ucache` searches uWSGI's own directory and those given by `plugins-dir`
PLUGINDIR ?= $(LIBDIR)/uwsgi/plugins
DATADIR ?= $(PREFIX)/share
LDCONFIG ?= ldconfig
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
# the soname's number (build.rs): increased when programs linked before could no longer run
ABI := 0
MANDIR ?= $(DATADIR)/man/man1
COMPLETIONS := bash-completion/completions/ucache zsh/site-functions/_ucache fish/vendor_completions.d/ucache.fish

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: ## start uWSGI with ucache and a demo page
	@.ci/deps all
	@$(MAKE) -s plugin
	@echo
	@echo '  open  http://127.0.0.1:8080/'
	@echo "  try   curl '127.0.0.1:8080/set?key=greeting&value=hello'"
	@echo "        curl '127.0.0.1:8080/get?key=greeting'"
	@echo "        curl '127.0.0.1:8080/incr?key=counter'"
	@echo "        curl '127.0.0.1:8080/keys'      (and /delete?key=  /clear  /stats)"
	@echo '  stop  with Ctrl-C'
	@echo
	@exec $(UWSGI) $(if $(CARGO_TARGET_DIR),--plugins-dir $(RELEASE)) --ini examples/uwsgi.ini

fleet: ## start a Valkey cluster, three uWSGIs as its machines, and a page that shows and stops them
	@.ci/deps all
	@$(MAKE) -s plugin
	@echo
	@echo '  stop  with Ctrl-C'
	@exec python3 examples/fleet/run.py --uwsgi $(UWSGI) --plugins $(RELEASE)

test: ## run every test: engine, C, Rust, a real uWSGI with and without the plugin
	@.ci/deps all
	@$(MAKE) -s plugin
	$(CARGO) test --all-features --no-fail-fast

# The tests that need no server, no plugin and no C program; of the deaths, two groups of twelve.
QUICK_TESTS := --lib --test architecture --test interface --test protocol --test words --test model --test eviction
QUICK_DEATHS := --test every_instruction -- reads_and_stores deletes_and_numbers

quick: ## check while working, under two minutes once built: format, lints, unit tests, model, deaths
	@.ci/deps
	$(CARGO) fmt --check
	$(CARGO) clippy --all-features -- -D warnings
	$(CARGO) test --all-features $(QUICK_TESTS)
	$(CARGO) test --all-features $(QUICK_DEATHS)

arm: ## test on 64-bit ARM: engine on an emulated processor, plugin on an emulated machine
	@.ci/deps arm
	tests/arm/run

mutants: ## reintroduce known bugs one at a time: a test must catch each
	@.ci/deps all
	tests/mutations/run.py

# SEED= repeats the random choices of a run, not its timing.
MINUTES ?= 60
SEED ?=
LOAD ?= soak sizes fleet

soak: ## random load: one machine, sizes that wander, then a fleet before a server (MINUTES=60 of each, LOAD=soak|sizes|fleet, SEED=)
	@.ci/deps all
	UCACHE_SOAK_MINUTES=$(MINUTES) UCACHE_FLEET_MINUTES=$(MINUTES) $(if $(SEED),UCACHE_SEED=$(SEED)) \
	    $(CARGO) test --all-features $(addprefix --test ,$(LOAD)) -- --nocapture --test-threads=1

# Results and plots go to target/bench; those of a quiet machine (KEEP=1: of any) to benches/results and the documents,
# too. PART: any of uwsgi, peers, memory, workers, engine, near, instructions, python, pages; documents only writes README and documentation.
PART ?= uwsgi peers memory workers engine near instructions
RIVALS := $(filter uwsgi peers memory workers near documents,$(PART))
MICRO := --bench engine --bench floor --bench resident --bench longest

bench: ## measure against uWSGI and others (PART=uwsgi|peers|memory|workers|engine|near|instructions|python|pages, QUICK=1, ROUNDS=6, KEEP=1)
	@.ci/deps bench
	@mkdir -p $(TARGET)/bench
ifneq (,$(RIVALS))
	@$(MAKE) -s plugin
	$(CARGO) build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers
	UCACHE_PLUGIN=$(RELEASE)/ucache_plugin.so $(TARGET)/peers/release/ucache-bench $(TARGET)/bench \
	    $(if $(QUICK),quick) $(if $(KEEP),keep) $(if $(ROUNDS),rounds=$(ROUNDS)) $(RIVALS)
endif
ifneq (,$(filter engine,$(PART)))
	$(CARGO) bench $(MICRO) $(if $(QUICK),-- --warm-up-time 0.2 --measurement-time 0.5 --sample-size 10) \
	    | tee $(TARGET)/bench/engine.txt
endif
ifneq (,$(filter instructions,$(PART)))
	$(CARGO) bench --features redis --bench instructions | tee $(TARGET)/bench/instructions.txt
endif
ifneq (,$(filter python,$(PART)))
	@.ci/deps bench-python
	@$(MAKE) -s plugin wheel
	.build/bench/bin/python3 -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/ucache-*.whl
	UCACHE_PLUGINS=$(abspath $(RELEASE)) .build/bench/bin/python3 benches/python.py | tee $(TARGET)/bench/python.txt
endif

ifneq (,$(filter pages,$(PART)))
	@$(MAKE) -s plugin
	benches/pages.py $(if $(QUICK),quick) $(if $(KEEP),keep) | tee $(TARGET)/bench/pages.txt
endif

# an earlier libucache.so, to measure a change (PROCESSES=2, KEYS=1000000, ROUNDS=60)
OLD ?=

pair: ## measure this library against an earlier one in the same process (OLD=path of its libucache.so)
	@test -e '$(OLD)' || { echo 'OLD= must name an existing libucache.so'; exit 1; }
	@$(MAKE) -s plugin
	@mkdir -p $(TARGET)/bench
	$(CC) -O2 -Wall -Wextra -Werror -o $(TARGET)/bench/pair benches/pair.c -ldl -lm
	$(TARGET)/bench/pair $(abspath $(OLD)) $(abspath $(RELEASE))/libucache.so

# items removed since BASELINE require a new version number
BASELINE ?= HEAD~1

semver: ## compare the crate's interface with another revision (BASELINE=HEAD~1)
	@command -v cargo-semver-checks > /dev/null || $(CARGO) install --locked cargo-semver-checks
	$(CARGO) semver-checks --baseline-rev $(BASELINE) --all-features

build: ## build target/release/libucache.so, libucache.a, ucache_plugin.so for uWSGI, and the command
	@.ci/deps
	@$(MAKE) -s plugin command

plugin:
	$(CARGO) build --release --features uwsgi,tls
	@ln -sfn libucache.so $(RELEASE)/ucache_plugin.so
	@ln -sfn libucache.so $(RELEASE)/libucache.so.$(ABI)

command:
	CARGO_PROFILE_RELEASE_LTO=off $(CARGO) build --release --features cli,tls --bin ucache --target-dir $(COMMAND)

WHEELS ?= $(TARGET)/wheels
WHEEL_TARGET ?= $(TARGET)/python

wheel: ## build the wheel of the Python package, target/wheels/ucache-*.whl
	@.ci/deps python
	@rm -f $(WHEELS)/ucache-*.whl
	PATH="$(abspath .build/python/bin):$$PATH" maturin build --release --locked --manifest-path src/python/Cargo.toml \
	    --interpreter .build/python/bin/python3 --target-dir $(abspath $(WHEEL_TARGET)) --out $(WHEELS)

deb: ## build target/deb/ucache_*.deb: plugin, library, header, command, manual pages
	@$(MAKE) -s build
	@.ci/deb $(TARGET)/deb

check: ## check lints, format, documentation, minimum Rust version
	@.ci/deps
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	$(CARGO) clippy --no-default-features --features serde -- -D warnings
	$(CARGO) clippy --features uwsgi -- -D warnings
	$(CARGO) clippy --no-default-features --features redis -- -D warnings
	$(CARGO) fmt --check --manifest-path src/python/Cargo.toml
	$(CARGO) clippy --manifest-path src/python/Cargo.toml --target-dir $(WHEEL_TARGET) -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --all-features

install: ## install library, header, plugin, command (PREFIX=/usr/local, DESTDIR=, LIBDIR=, PLUGINDIR=)
	@test -e $(RELEASE)/ucache_plugin.so -a -e $(COMMAND)/release/ucache || { echo 'run `make build` first'; exit 1; }
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(PLUGINDIR)
	install -m 755 $(RELEASE)/libucache.so $(DESTDIR)$(LIBDIR)/libucache.so.$(VERSION)
	ln -sfn libucache.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libucache.so.$(ABI)
	ln -sfn libucache.so.$(ABI) $(DESTDIR)$(LIBDIR)/libucache.so
	install -m 644 $(RELEASE)/libucache.a $(DESTDIR)$(LIBDIR)/libucache.a
	install -m 644 include/ucache.h $(DESTDIR)$(INCLUDEDIR)/ucache.h
	ln -sfn $(LIBDIR)/libucache.so.$(ABI) $(DESTDIR)$(PLUGINDIR)/ucache_plugin.so
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' \
	    'Name: ucache' 'Description: crash-safe shared-memory cache' 'Version: $(VERSION)' \
	    'Libs: -L$${libdir} -lucache' 'Libs.private: -lutil -lrt -lpthread -lm -ldl' \
	    'Cflags: -I$${includedir}' > $(DESTDIR)$(LIBDIR)/pkgconfig/ucache.pc
	install -D -s -m 755 $(COMMAND)/release/ucache $(DESTDIR)$(PREFIX)/bin/ucache
	$(COMMAND)/release/ucache man --dir $(DESTDIR)$(MANDIR)
	@mkdir -p $(addprefix $(DESTDIR)$(DATADIR)/,$(dir $(COMPLETIONS)))
	$(COMMAND)/release/ucache completions bash > $(DESTDIR)$(DATADIR)/$(word 1,$(COMPLETIONS))
	$(COMMAND)/release/ucache completions zsh > $(DESTDIR)$(DATADIR)/$(word 2,$(COMPLETIONS))
	$(COMMAND)/release/ucache completions fish > $(DESTDIR)$(DATADIR)/$(word 3,$(COMPLETIONS))
	@test -n '$(DESTDIR)' || test "$$(id -u)" != 0 || $(LDCONFIG)
	@$(UWSGI) --cflags 2>/dev/null | grep -qF '$(PLUGINDIR)\' || \
	    echo 'in uwsgi.ini: plugins-dir = $(PLUGINDIR)'

uninstall: ## remove what `make install` installed with the same variables
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,libucache.so libucache.so.$(ABI) libucache.so.$(VERSION) libucache.a) \
	    $(DESTDIR)$(INCLUDEDIR)/ucache.h $(DESTDIR)$(PLUGINDIR)/ucache_plugin.so $(DESTDIR)$(LIBDIR)/pkgconfig/ucache.pc \
	    $(DESTDIR)$(PREFIX)/bin/ucache $(DESTDIR)$(MANDIR)/ucache.1 $(DESTDIR)$(MANDIR)/ucache-*.1 \
	    $(addprefix $(DESTDIR)$(DATADIR)/,$(COMPLETIONS))

clean: ## remove all build products
	$(CARGO) clean
	rm -rf .build

deps: ## only install missing dependencies
	@.ci/deps all
