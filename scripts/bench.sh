#!/usr/bin/env bash
# The benchmark on a throw-away cluster. Usage: scripts/bench.sh PROGRAM [ARGUMENT...]
# with PROGRAM one of those that bench/ builds.
set -euo pipefail
. "$(dirname "$0")/build.sh"
program=$1
shift
if [ "$program" = profile ]; then
  command -v perf >/dev/null || "$root/scripts/setup.sh" perf
fi
install_extension
say "building the benchmark"
cd "$root"
cargo build --quiet --release --package sync_ext_bench
exec "$root/target/release/$program" "$@"
