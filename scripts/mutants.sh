#!/usr/bin/env bash
# Tests the unit tests of the crate core/: cargo-mutants changes one expression of its
# rules and wire after the other and demands that a test notices. Results are in
# target/mutants.out; `--iterate` asks only for what was missed the last time.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
if ! command -v cargo >/dev/null; then "$root/scripts/setup.sh"; fi
command -v cargo-mutants >/dev/null || install_cargo_tool cargo-mutants 27.1.0

# Each change is made in a copy of the project, which builds in a folder of its own.
unset CARGO_TARGET_DIR
# A failure is a failure: it need not be made small, nor tried again first.
export PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
export SYNC_EXT_SMALL_WORLD=1
unset RUST_BACKTRACE
cd "$root"
status=0
nice -n 10 cargo mutants --package sync_ext_core --config "$root/tests/mutants.toml" --output "$root/target" --no-shuffle "$@" ||
  status=$?
# 3: something made the tests hang, which is noticed too; but was all else?
[ "$status" -eq 3 ] || exit "$status"
[ ! -s "$root/target/mutants.out/missed.txt" ]
