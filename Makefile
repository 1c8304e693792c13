# make demo      two namespaces with the firewall between them and real traffic (KEEP=1 leaves it up)
# make test      every check that a change must pass
# make sanitize  the unit tests under the thread and the address sanitizer
# make bench     the benchmarks, each against its peers, into benches/results (QUICK=1 takes minutes)
# make deb       the Debian 12 package, into target/debian
# make test-deb  installs it in a clean Debian tree, boots that, uses it and removes it (root; DEB=FILE: that one)
# make image     a bootable disk image of Debian 12 with the package, into target/image (root; DEB=FILE: that one)
# make test-image  boots it in emulated boxes with NICs bound by our scripts, and sends traffic through them; a
#                quarter of an hour, so no part of `make test` (root; DEB=FILE, SCENARIO=vfio|uio|queues)
# make fmt       formats the sources
# make clean     removes what was built
.PHONY: help demo test sanitize bench deb test-deb image test-image fmt clean
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

deb:
	deploy/setup.sh deb
	cargo build --release --locked
	rm -rf target/package
	$${CARGO_TARGET_DIR:-target}/release/shardwall manual target/package
	cargo deb --no-build --locked --strip

test-deb: $(if $(DEB),,deb)
	deploy/test-deb.sh $(DEB)

image: $(if $(DEB),,deb)
	deploy/setup.sh image
	deploy/image/build.sh $(if $(DEB),--package $(DEB))

test-image: image
	deploy/image/test.py $(SCENARIO)

fmt:
	cargo fmt --all

clean:
	cargo clean
