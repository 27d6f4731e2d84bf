#!/usr/bin/env bash
# Tests the unit tests of src/rules and src/wire: cargo-mutants changes one
# expression after the other and demands that a test notices. Results are in
# target/mutants.out; `--iterate` asks only for what was missed the last time.
#
# What it changes knows nothing of Postgres, so it is built without: a crate of
# src/rules, src/wire and the enum of src/error.rs takes a tenth of the time.
set -euo pipefail
. "$(dirname "$0")/env.sh"
tree=$root/target/mutants
if ! command -v cargo >/dev/null; then "$root/scripts/setup.sh"; fi
if ! command -v cargo-mutants >/dev/null; then
  say "installing cargo-mutants (about three minutes)"
  cargo install cargo-mutants --version 27.1.0 --locked --root "$root/target/tools" \
    --target-dir "$root/target/tools/build" --quiet
  rm -rf "$root/target/tools/build"
fi

rm -rf "$tree/src"
mkdir -p "$tree/src"
cp -r "$root/src/rules" "$root/src/wire" "$tree/src/"
cp "$root/Cargo.lock" "$tree/"
printf '%s\n' 'mod error;' 'mod rules;' 'mod wire;' >"$tree/src/lib.rs"
{
  echo 'use thiserror::Error;'
  sed -n '/^#\[derive(Debug, Error)\]/,/^}/p' "$root/src/error.rs"
} >"$tree/src/error.rs"
{
  printf '%s\n' '[package]' 'name = "sync_ext_without_postgres"' 'edition = "2024"' '' '[workspace]' ''
  sed -n '/^\[\(dev-\)\?dependencies\]/,/^$/p' "$root/Cargo.toml" | grep -v '^pgrx'
  printf '%s\n' '[lints.rust]' 'dead_code = "allow"' '' '[profile.dev]' 'debug = false'
} >"$tree/Cargo.toml"

export CARGO_TARGET_DIR=$tree/target
# A failure is a failure: it need not be made small, nor tried again first.
export PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
unset RUST_BACKTRACE
cd "$tree"
status=0
nice -n 10 cargo mutants --config "$root/tests/mutants.toml" --output "$root/target" --no-shuffle "$@" ||
  status=$?
# 3: something made the tests hang, which is noticed too; but was all else?
[ "$status" -eq 3 ] || exit "$status"
[ ! -s "$root/target/mutants.out/missed.txt" ]
