# Set-up is part of every verb; PG=15|16|17|18 chooses the Postgres to use.

.PHONY: help demo demo-web test test-all upgrade-test wire proof client-proof client-browser client-bench mutations mutations-table mutants bench bench-quick bench-growth profile sizing gateway \
  gateway-figures gateway-moves gateway-soak install package deb deb-test dist release docs deny pgdg all golden fmt clean

help:
	@echo 'make demo      replay a real op log on a throw-away cluster; then push to typed tables'
	@echo '               that plain SQL changes at the same time'
	@echo 'make demo-web  two devices in the browser, with an offline switch each and plain SQL beside'
	@echo '               them, until Ctrl-C'
	@echo 'make test      formatting, lints and all tests; test-all on Postgres 15, 16, 17 and 18'
	@echo 'make upgrade-test  upgrades a loaded cluster from the last release, and by pg_upgrade from'
	@echo '               Postgres 15 to 18; wire records calls and replies of this version'
	@echo 'make proof     the long form of the tests, 30 minutes: SEED=7 MINUTES=60 (of simulation),'
	@echo '               PARTS="small-world simulation access crash hostile long-life moves own_tables typed"'
	@echo 'make client-proof plays histories of clients against the gateway: SEED=7 MINUTES=10;'
	@echo '               client-browser tests the client in Chromium, client-bench measures it there:'
	@echo '               ROUNDS=5 RECORDS=100000'
	@echo 'make mutations puts known bugs in and demands that the tests catch them (an hour);'
	@echo '               mutations-table writes down which; mutants has cargo-mutants change'
	@echo '               the crate core/ (20 minutes)'
	@echo 'make bench     sync_ext beside plain SQL and its peers; bench-quick for less,'
	@echo '               bench-growth for logs of up to ten million entries'
	@echo 'make gateway   the gateway beside a throw-away cluster, until Ctrl-C;'
	@echo '               gateway-figures for how long an edit takes from device to device,'
	@echo '               gateway-soak for 2,000 streams while the database restarts (5 minutes),'
	@echo '               gateway-moves for moves between servers under load: MINUTES=3'
	@echo 'make profile   where the time of a push and a pull goes, by perf'
	@echo 'make sizing    what a number of devices takes, and how evenly workspaces lie on servers'
	@echo 'make install   build and install into the Postgres of PG_CONFIG (default: pg_config)'
	@echo 'make package   build the installable files under target/release'
	@echo 'make deb       Debian packages of the extension and the gateway, in target/deb;'
	@echo '               deb-test installs, tries and purges them in a bare Debian (as root)'
	@echo 'make dist      the source archive for PGXN, in target/dist; release checks that all is ready'
	@echo 'make docs      the documents as a site, in target/docs/site'
	@echo 'make deny      licenses, advisories and sources of the dependencies, by cargo-deny'
	@echo 'make pgdg      add the package source of Postgres'"'"' own project to this Debian or Ubuntu'
	@echo 'make golden    accept the output of golden SQL tests and of examples in docs; read the diff'
	@echo 'make fmt       format the code'
	@echo 'make clean     remove everything built or set up here'
	@echo
	@echo 'PG=15|16|17|18 chooses the major version where there is a Postgres in it, but for test-all and install.'

demo:
	@scripts/demo.sh

demo-web:
	@scripts/demo_web.sh

test:
	@scripts/test.sh

test-all:
	@scripts/test_all.sh

upgrade-test:
	@scripts/upgrade_test.sh

wire:
	@scripts/wire.sh

client-proof:
	@scripts/clients.sh --run proof proof $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10)

client-browser:
	@scripts/clients.sh --run typescript/browser test

client-bench:
	@scripts/clients.sh --run typescript/browser bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RECORDS),--records $(RECORDS))

proof:
	@scripts/proof.sh $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(PARTS)

mutations:
	@scripts/mutate.sh

mutations-table:
	@scripts/mutations_table.sh >tests/mutations/README.md

mutants:
	@scripts/mutants.sh

bench:
	@scripts/bench.sh sync_ext_bench

bench-quick:
	@scripts/bench.sh sync_ext_bench --quick

bench-growth:
	@scripts/bench.sh growth

profile:
	@scripts/bench.sh profile

sizing:
	@bench/sizing.py

gateway:
	@scripts/gateway.sh

gateway-figures:
	@scripts/gateway.sh figures

gateway-moves:
	@scripts/gateway.sh moves $(or $(MINUTES),3)

gateway-soak:
	@scripts/gateway.sh soak

install:
	@scripts/install.sh

package:
	@scripts/package.sh

# What PGXN's client calls before it installs.
all: package

deb:
	@scripts/deb.sh

deb-test:
	@scripts/deb_test.sh

dist:
	@scripts/dist.sh

release:
	@scripts/release.sh

docs:
	@scripts/docs.sh

deny:
	@scripts/deny.sh

pgdg:
	@scripts/pgdg.sh

golden:
	@SYNC_EXT_ACCEPT=1 scripts/golden.sh

fmt:
	@cargo fmt --all

clean:
	@scripts/clean.sh
