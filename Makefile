# `make run` and `make test` install what they need (apt-get, PyPI) and go; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build plugin command run test arm bench pair mutants soak check semver install uninstall clean

ifeq (,$(shell command -v cargo))
export PATH := $(PATH):$(HOME)/.cargo/bin
endif
CARGO ?= cargo
UWSGI ?= $(or $(UWSGI_BIN),uwsgi)
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
# a place of its own: the same crate with other features would replace the library
COMMAND := $(TARGET)/command

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
# `plugin = ucache` finds it in uWSGI's own directory, or in one named with `plugins-dir`
PLUGINDIR ?= $(LIBDIR)/uwsgi/plugins
DATADIR ?= $(PREFIX)/share
LDCONFIG ?= ldconfig
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
# the number in the soname (build.rs): goes up when a program that was linked before could not run any more
ABI := 0
MANDIR ?= $(DATADIR)/man/man1
COMPLETIONS := bash-completion/completions/ucache zsh/site-functions/_ucache fish/vendor_completions.d/ucache.fish

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: ## a real uWSGI with ucache and a page that shows it at work
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

test: ## every test: engine, C, Rust, a real uWSGI with and without the plugin
	@.ci/deps all
	@$(MAKE) -s plugin
	$(CARGO) test --all-features --no-fail-fast

arm: ## 64-bit ARM: the engine's tests on an emulated processor, uWSGI with the plugin on an emulated machine
	@.ci/deps arm
	tests/arm/run

mutants: ## puts known bugs back, one at a time: each must be noticed
	@.ci/deps all
	tests/mutations/run.py

# SEED= repeats a run's choices, not its timing.
MINUTES ?= 60
SEED ?=

soak: ## everything at once, for MINUTES=60: kills, stops, limits, clears, a clock that is set; judged as a history
	@.ci/deps all
	UCACHE_SOAK_MINUTES=$(MINUTES) $(if $(SEED),UCACHE_SEED=$(SEED)) $(CARGO) test --all-features --test soak -- --nocapture --test-threads=1

# Figures and a plot of every part go to target/bench. PART: one or more of uwsgi, peers, memory, engine, instructions.
PART ?= uwsgi peers memory engine instructions
RIVALS := $(filter uwsgi peers memory,$(PART))
MICRO := --bench engine --bench floor --bench resident --bench longest

bench: ## ratios against uWSGI and others (PART=uwsgi|peers|memory|engine|instructions, QUICK=1, ROUNDS=5)
	@.ci/deps bench
	@mkdir -p $(TARGET)/bench
ifneq (,$(RIVALS))
	@$(MAKE) -s plugin
	$(CARGO) build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers
	UCACHE_PLUGIN=$(RELEASE)/ucache_plugin.so $(TARGET)/peers/release/ucache-bench $(TARGET)/bench \
	    $(if $(QUICK),quick) $(if $(ROUNDS),rounds=$(ROUNDS)) $(RIVALS)
endif
ifneq (,$(filter engine,$(PART)))
	$(CARGO) bench $(MICRO) $(if $(QUICK),-- --warm-up-time 0.2 --measurement-time 0.5 --sample-size 10) \
	    | tee $(TARGET)/bench/engine.txt
endif
ifneq (,$(filter instructions,$(PART)))
	$(CARGO) bench --bench instructions | tee $(TARGET)/bench/instructions.txt
endif

# an earlier libucache.so: what a change gave (PROCESSES=2, KEYS=1000000, ROUNDS=60)
OLD ?=

pair: ## this library against an earlier one, both in one process (OLD=path of its libucache.so)
	@test -e '$(OLD)' || { echo 'OLD= names no libucache.so'; exit 1; }
	@$(MAKE) -s plugin
	@mkdir -p $(TARGET)/bench
	$(CC) -O2 -Wall -Wextra -Werror -o $(TARGET)/bench/pair benches/pair.c -ldl -lm
	$(TARGET)/bench/pair $(abspath $(OLD)) $(abspath $(RELEASE))/libucache.so

# what the crate offered at BASELINE must still be there, or its version say so
BASELINE ?= HEAD~1

semver: ## the crate's interface against another revision (BASELINE=HEAD~1)
	@command -v cargo-semver-checks > /dev/null || $(CARGO) install --locked cargo-semver-checks
	$(CARGO) semver-checks --baseline-rev $(BASELINE) --all-features

build: ## the library: target/release/libucache.so, .a, and ucache_plugin.so for uWSGI; the command
	@.ci/deps
	@$(MAKE) -s plugin command

plugin:
	$(CARGO) build --release --features uwsgi
	@ln -sfn libucache.so $(RELEASE)/ucache_plugin.so
	@ln -sfn libucache.so $(RELEASE)/libucache.so.$(ABI)

command:
	CARGO_PROFILE_RELEASE_LTO=off $(CARGO) build --release --features cli --bin ucache --target-dir $(COMMAND)

check: ## lints, format, documentation
	@.ci/deps
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --all-features

install: ## library, header, plugin and command under PREFIX (/usr/local); DESTDIR, LIBDIR, PLUGINDIR
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

uninstall: ## what `make install` with the same variables put there
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,libucache.so libucache.so.$(ABI) libucache.so.$(VERSION) libucache.a) \
	    $(DESTDIR)$(INCLUDEDIR)/ucache.h $(DESTDIR)$(PLUGINDIR)/ucache_plugin.so $(DESTDIR)$(LIBDIR)/pkgconfig/ucache.pc \
	    $(DESTDIR)$(PREFIX)/bin/ucache $(DESTDIR)$(MANDIR)/ucache.1 $(DESTDIR)$(MANDIR)/ucache-*.1 \
	    $(addprefix $(DESTDIR)$(DATADIR)/,$(COMPLETIONS))

clean: ## removes everything that was built
	$(CARGO) clean
	rm -rf .build

deps: ## only installs what is missing
	@.ci/deps all
