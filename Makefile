# sbx: microVM sandboxes for coding agents.
#
#   make            build sbx and sbx-guest
#   make run        install what is missing, build, prepare the base image, open a sandbox here
#   make test       install what is missing, run every test (T=pattern limits the end-to-end tests)
#   make test SAN=1 the same, the end-to-end tests with ASan and UBSan in every process of sbx as well (takes twice as long)
#   make unit       the unit tests alone;  make unit SAN=1: under ASan and UBSan
#   make test-kvm   some of the tests with KVM, in a machine whose processor is emulated (T=pattern)
#   make fuzz       every fuzz target, FUZZ_TIME seconds each (make test runs what their corpora hold)
#   make bench      the benchmarks
#   make screenshots   the dashboard's panes and forms as text and PNG, in build/screens
#   make install    PREFIX, DESTDIR
#   make clean

CC        ?= gcc
PREFIX    ?= /usr/local
DESTDIR   ?=
FUZZ_TIME ?= 60
T         ?=
# Debian's own: the libraries that tests use are its packages.
PYTHON    ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)

PKGS := libevent libevent_pthreads jansson libsodium openssl libnghttp2 libpsl libidn2 \
        libseccomp libsystemd sqlite3 fuse3 libarchive libcurl vterm ncursesw
CSTD  := -std=c17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
WARN  := -Wall -Wextra -Werror -Wshadow -Wvla -Wformat=2 -Wpointer-arith -Wwrite-strings \
         -Wmissing-prototypes -Wstrict-prototypes -Wimplicit-fallthrough -Wundef
HARD  := -fstack-protector-strong -fPIE -fno-strict-overflow
OPT   := -O2 -g

ifdef SAN
BUILD ?= build-san
OPT   := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined \
         -Wno-format-truncation # what the sanitizers insert hides from gcc how long texts can be
SANLD := -fsanitize=address,undefined
else
BUILD ?= build
HARD  += -D_FORTIFY_SOURCE=2
endif

PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) | sed 's/-I/-isystem /g')
PKG_LIBS   = $(shell pkg-config --libs $(PKGS))

CPPFLAGS_SBX = -Isrc -DNCURSES_NOMACROS -DSBX_PREFIX='"$(PREFIX)"' $(PKG_CFLAGS)
CFLAGS_SBX   = $(CSTD) $(WARN) $(HARD) $(OPT) $(CFLAGS)
LDFLAGS_SBX  = -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(SANLD) $(LDFLAGS)
LIBS_SBX     = $(PKG_LIBS) -lpthread

LIB_SRC  := $(wildcard src/core/*.c src/vm/*.c src/net/*.c src/ui/*.c src/ui/cli/*.c \
            src/ui/dash/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
MAIN_OBJ := $(BUILD)/src/main.o
ROLES    := $(addprefix $(BUILD)/lib/sbx-,supervise broker net fs screen command)
# What host and guest share is built a second time, static, for the guest.
GUEST_SRC := $(wildcard src/guest/*.c) src/core/err.c src/core/link.c
GUEST_OBJ := $(GUEST_SRC:%.c=$(BUILD)/guest/%.o)

UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
BENCH_SRC := $(wildcard tests/bench/bench_*.c)
BENCH_BIN := $(BENCH_SRC:tests/bench/%.c=$(BUILD)/bench/%)

.PHONY: all run test test-kvm unit fuzz fuzz-build fuzz-corpus bench bench-build screenshots install clean deps
all: $(BUILD)/sbx $(ROLES) $(BUILD)/sbx-guest assets/terminfo/s/sbx-direct

# Without it the dashboard has 256 colours.
assets/terminfo/s/sbx-direct: assets/terminfo.src
	@-tic -x -o assets/terminfo $< && touch $@

$(BUILD)/libsbx.a: $(LIB_OBJ)
	@rm -f $@ && ar rcs $@ $^

# The plain cases of start and exec; all else it leaves to sbx-command, which needs four times as many libraries.
$(BUILD)/sbx: $(BUILD)/src/quick.o $(BUILD)/libsbx.a
	@echo "LD $@"
	@$(CC) $(LDFLAGS_SBX) -o $@ $^ $(LIBS_SBX)

$(BUILD)/lib/sbx-command: $(MAIN_OBJ) $(BUILD)/libsbx.a
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CC) $(LDFLAGS_SBX) -o $@ $^ $(LIBS_SBX)

# Each takes of the library, and of its libraries, only what it needs.
$(BUILD)/lib/sbx-%: src/role.c $(BUILD)/libsbx.a
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CC) $(CSTD) $(WARN) $(HARD) $(OPT) $(CFLAGS) -DROLE_MAIN=$*_main $(LDFLAGS_SBX) -o $@ $^ $(LIBS_SBX)

# Static, because the initramfs holds nothing else.
$(BUILD)/sbx-guest: $(GUEST_OBJ)
	@echo "LD $@"
	@$(CC) -static -Wl,--gc-sections -s -o $@ $^ -l:libjansson.a -lpthread -lutil

$(BUILD)/guest/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $< (guest)"
	@$(CC) -Isrc $(CSTD) $(WARN) -O2 -g -ffunction-sections -fstack-protector-strong -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(CPPFLAGS_SBX) $(CFLAGS_SBX) -MMD -MP -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libsbx.a
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CC) $(CPPFLAGS_SBX) $(CFLAGS_SBX) -Itests -MMD -MP $(LDFLAGS_SBX) -o $@ $< $(BUILD)/libsbx.a -lcmocka -lm $(LIBS_SBX)

$(BUILD)/bench/%: tests/bench/%.c $(BUILD)/libsbx.a
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CC) $(CPPFLAGS_SBX) $(CFLAGS_SBX) -Itests -MMD -MP $(LDFLAGS_SBX) -o $@ $< $(BUILD)/libsbx.a $(LIBS_SBX)

# Fuzz targets name the sources that they need in a first line "// needs: src/core/x.c ...",
# so that all of the code under test is instrumented.
$(BUILD)/fuzz/%: tests/fuzz/%.c $(LIB_SRC)
	@mkdir -p $(@D)
	clang $(CSTD) $(CPPFLAGS_SBX) -g -O1 -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=undefined -o $@ $< $$(sed -n 's,^// needs: ,,p' $<) $(LIBS_SBX)

unit: all $(UNIT_BIN)
	@failed=; for t in $(UNIT_BIN); do echo "== $$t"; $$t || failed="$$failed $$t"; done; \
	for t in $$failed; do echo "== once more: $$t"; $$t || exit 1; done; \
	test -z "$$failed" || echo "passed only once more, look at them:$$failed"

# Everything: what is missing is installed, the base image is built if there is none.
test:
	@scripts/setup --test
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory unit SAN=1
	@$(MAKE) --no-print-directory bench-build
	@$(MAKE) --no-print-directory fuzz-corpus
	@$(BUILD)/sbx image build --if-missing
	@set -f; SBX_BUILD=$(BUILD) $(PYTHON) tests/e2e/run.py $$T

run:
	@scripts/setup
	@$(MAKE) --no-print-directory all
	@$(BUILD)/sbx image build --if-missing
	@if [ -t 0 ] && [ -t 1 ]; then $(BUILD)/sbx run --detach shell . && $(BUILD)/sbx; else $(BUILD)/sbx run shell .; fi

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/sbx $(DESTDIR)$(PREFIX)/share/sbx \
	  $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(BUILD)/sbx $(DESTDIR)$(PREFIX)/bin/sbx
	install -m 755 $(BUILD)/sbx-guest $(ROLES) $(DESTDIR)$(PREFIX)/lib/sbx/
	cp -r assets/. $(DESTDIR)$(PREFIX)/share/sbx/
	$(BUILD)/sbx man > $(DESTDIR)$(PREFIX)/share/man/man1/sbx.1
	$(BUILD)/sbx completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/sbx
	$(BUILD)/sbx completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sbx
	$(BUILD)/sbx completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sbx.fish

# With a KVM that works, on a machine that has none (tests/kvm.py).
test-kvm:
	@scripts/setup --test
	@$(MAKE) --no-print-directory all BUILD=build-kvm CFLAGS=-DPATIENCE=30
	@$(MAKE) --no-print-directory all
	@$(BUILD)/sbx image build --if-missing
	@set -f; $(PYTHON) tests/kvm.py $$T

fuzz-build: $(FUZZ_BIN)
# What was found once stays found, and a target that no longer builds is noticed.
fuzz-corpus: fuzz-build
	@set -e; for f in $(FUZZ_BIN); do n=$$(basename $$f); echo "== $$n"; mkdir -p tests/fuzz/corpus/$$n; \
	  $$f -runs=0 -timeout=10 tests/fuzz/corpus/$$n >$(BUILD)/fuzz/$$n.log 2>&1 || { cat $(BUILD)/fuzz/$$n.log; exit 1; }; done
fuzz: fuzz-build
	@set -e; for f in $(FUZZ_BIN); do n=$$(basename $$f); mkdir -p tests/fuzz/corpus/$$n $(BUILD)/fuzz/$$n.new; \
	  echo "== $$n"; $$f -max_total_time=$(FUZZ_TIME) -timeout=10 -print_final_stats=1 \
	  -artifact_prefix=$(BUILD)/fuzz/$$n- $(BUILD)/fuzz/$$n.new tests/fuzz/corpus/$$n; done

bench-build: $(BENCH_BIN)
bench: all bench-build
	@set -e; for b in $(BENCH_BIN); do echo "== $$b"; $$b; done
	@$(PYTHON) tests/bench/bench_proxy.py
	@$(PYTHON) tests/bench/bench_keys.py
	@$(PYTHON) tests/bench/bench_machine.py
	@$(PYTHON) tests/bench/bench_dashboard.py

# DOCS=--docs: those that the documentation shows are put there.
screenshots:
	@scripts/setup --screens
	@$(MAKE) --no-print-directory all
	@$(BUILD)/sbx image build --if-missing
	@$(PYTHON) tests/screens/shots.py $(DOCS)

clean:
	rm -rf build build-* assets/terminfo

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
