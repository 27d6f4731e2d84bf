#!/usr/bin/env bash
# All tests against one Postgres. PG=18 scripts/test.sh for another major.
set -euo pipefail
. "$(dirname "$0")/build.sh"
PG=$pg "$root/scripts/setup.sh" tests
cd "$root"
features=(--no-default-features --features "pg$pg")

say "formatting"
cargo fmt --all -- --check
say "lints"
cargo clippy --quiet --workspace --all-targets "${features[@]}" -- -D warnings

scripts/mutations_table.sh --check
scripts/router.py --check
bench/sizing.py --check

say "unit and property tests without Postgres"
cargo test --quiet --package sync_ext_core --package sync_ext_harness --package sync_ext_model
say "in-backend tests on Postgres $pg"
# cargo-pgrx starts the server as the user postgres when we are root.
pgdata=$run/pgrx-test-$pg
rm -rf "$pgdata"
as_postgres=()
if [ "$(id -u)" -eq 0 ]; then
  install -d -o postgres "$pgdata"
  as_postgres=(--runas postgres)
fi
cargo pgrx test "pg$pg" --package sync_ext "${features[@]}" --pgdata "$pgdata" "${as_postgres[@]}"

install_extension
say "golden SQL tests and tests with real clients on Postgres $pg"
cargo test --package sync_ext_tests --package sync_ext_proof --package sync_ext_demo \
  --package sync_ext_gateway -- --nocapture
scripts/clients.sh
