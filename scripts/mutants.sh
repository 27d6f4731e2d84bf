#!/usr/bin/env bash
# Tests the unit tests of src/rules and src/wire: cargo-mutants changes one
# expression after the other and demands that a test notices. About an hour;
# `--iterate` asks only for what was missed last time. Results: target/mutants.out.
# What is missed and why it may be: tests/README.md.
set -euo pipefail
. "$(dirname "$0")/env.sh"
pg=$(choose_pg)
"$root/scripts/setup.sh" "$pg"
if ! command -v cargo-mutants >/dev/null; then
  say "installing cargo-mutants (about three minutes)"
  cargo install cargo-mutants --version 27.1.0 --locked --root "$root/target/tools" \
    --target-dir "$root/target/tools/build" --quiet
  rm -rf "$root/target/tools/build"
fi
# A folder of its own, and no debug symbols: linking is most of the work.
export CARGO_TARGET_DIR=$root/target/mutants CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false
unset RUST_BACKTRACE
cd "$root"
exec nice -n 10 cargo mutants --output target --features "pg$pg" --no-shuffle "$@"
