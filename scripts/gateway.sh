#!/usr/bin/env bash
# The gateway. `scripts/gateway.sh` starts it beside a throw-away
# cluster until Ctrl-C; `scripts/gateway.sh figures` measures it.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
say "building the gateway"
if [ "${1:-}" = figures ]; then
  exec cargo bench --quiet --package sync_ext_gateway --bench figures
fi
cargo build --quiet --release --package sync_ext_gateway --bins --examples
exec "$root/target/release/examples/beside_cluster"
