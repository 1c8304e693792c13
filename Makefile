# make demo      two namespaces with the firewall between them and real traffic (KEEP=1 leaves it up)
# make test      every check that a change must pass
# make sanitize  the unit tests under the thread and the address sanitizer
# make bench     the benchmarks, each against its peers, into benches/results (QUICK=1 takes minutes)
# make fmt       formats the sources
# make clean     removes what was built
.PHONY: help demo test sanitize bench fmt clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

demo:
	deploy/setup.sh demo
	cargo build --release --locked
	$${CARGO_TARGET_DIR:-target}/release/shardwall demo $(if $(KEEP),--keep)

test:
	deploy/setup.sh test
	deploy/checks.sh

sanitize:
	deploy/checks.sh sanitizers

bench:
	deploy/setup.sh bench
	cargo bench --locked --bench report -- $(if $(QUICK),--quick,--full)

fmt:
	cargo fmt --all

clean:
	cargo clean
