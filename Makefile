# make demo    ten seconds of replayed traffic through two DPDK ports, with numbers
# make test    formatting, lints, every test
# make life    ten minutes of random events on a switch and its twin without caches
# make build   target/release/ovs-vswitchd
# make bench   component benchmarks; the whole daemon beside Open vSwitch (root, hugepages)
# make man     target/ovs-vswitchd.8, the manual page, from the fragments beside the code
# make install binary, service files and manual page into Debian's places (DESTDIR=...)
# make deps    installs with apt-get what is missing
# make fmt     formats the sources
# make lint    formatting and lints only

CARGO ?= cargo

# Beside the programs of Debian's packages, so that update-alternatives chooses one of them for /usr/sbin/ovs-vswitchd.
libdir = /usr/lib/openvswitch-switch-pmd
scripts = /usr/share/openvswitch/scripts
BINARY ?= target/release/ovs-vswitchd
MANUAL = target/ovs-vswitchd.8

.PHONY: demo test life build man install bench deps fmt lint

demo:
	@./demo/demo.sh

test: lint
	$(CARGO) test --workspace --locked

life:
	VSWITCH_LIFE_SECONDS=600 $(CARGO) test --locked -p ofproto --test life -- --nocapture

build:
	$(CARGO) build --release --locked

man: $(MANUAL)

$(MANUAL): man/build man/ovs-vswitchd.8.in $(shell sed -n 's/^\.so //p' man/ovs-vswitchd.8.in)
	@mkdir -p $(@D)
	man/build >$@.new
	mv $@.new $@

install: $(MANUAL)
	@test -x $(BINARY) || { echo "make install: $(BINARY) is not there: run make build first, as the user who builds" >&2; exit 1; }
	install -D -m 755 $(BINARY) $(DESTDIR)$(libdir)/ovs-vswitchd
	install -D -m 755 hugepage-setup.sh $(DESTDIR)$(scripts)/hugepage-setup.sh
	install -D -m 755 service/vswitch-ctl $(DESTDIR)$(scripts)/vswitch-ctl
	install -D -m 644 service/vswitch.service $(DESTDIR)/lib/systemd/system/vswitch.service
	install -D -m 644 $(MANUAL) $(DESTDIR)/usr/share/man/man8/ovs-vswitchd-pmd.8
	test -e $(DESTDIR)/etc/logrotate.d/openvswitch-switch || \
	  install -D -m 644 service/logrotate $(DESTDIR)/etc/logrotate.d/openvswitch-switch
	@echo "to use it: update-alternatives --install /usr/sbin/ovs-vswitchd ovs-vswitchd $(libdir)/ovs-vswitchd 200"

# Debian's Open vSwitch with DPDK, to measure beside, and how often.
OVS ?= /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
ROUNDS ?= 5

bench: build
	$(CARGO) bench --locked -p ofproto --bench sweep
	$(CARGO) bench --locked -p ofproto --bench translate
	$(CARGO) bench --locked -p datapath --bench path
	$(CARGO) test --release --locked --test it perf:: -- --ignored --nocapture --test-threads=1
	@if test -x $(OVS); then set -x; python3 tests/bench/compare.py --switch ovs=$(OVS) \
	  --switch ours=target/release/ovs-vswitchd --rounds $(ROUNDS) $$(command -v dpdk-testpmd >/dev/null && echo --limit); \
	else echo "make bench: no comparison: $(OVS) is not there (apt-get install openvswitch-switch-dpdk)"; fi

deps:
	@./.ci/deps

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
