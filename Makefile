# make demo    ten seconds of replayed traffic through two DPDK ports, with numbers
# make test    formatting, lints, every test
# make build   target/release/ovs-vswitchd
# make bench   component benchmarks
# make deps    installs with apt-get what is missing
# make fmt     formats the sources
# make lint    formatting and lints only

CARGO ?= cargo

.PHONY: demo test build bench deps fmt lint

demo:
	@./demo/demo.sh

test: lint
	$(CARGO) test --workspace --locked

build:
	$(CARGO) build --release --locked

bench:
	$(CARGO) bench --workspace --locked

deps:
	@./.ci/deps

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
