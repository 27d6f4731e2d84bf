#!/usr/bin/env bash
# The benchmark on a throw-away cluster; --quick for a shorter one.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
say "building the benchmark"
cd "$root"
cargo build --quiet --release --package sync_ext_bench
exec "$root/target/release/sync_ext_bench" "$@"
