#!/usr/bin/env bash
# The gateway. `scripts/gateway.sh` starts it beside a throw-away
# cluster until Ctrl-C; `scripts/gateway.sh figures` measures it, and
# `scripts/gateway.sh soak` keeps it busy for minutes (`soak short`: seconds).
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
say "building the gateway"
case "${1:-}" in
figures | soak) exec cargo bench --quiet --package sync_ext_gateway --bench "$1" -- "${@:2}" ;;
esac
cargo build --quiet --release --package sync_ext_gateway --bins --examples
exec "$root/target/release/examples/beside_cluster"
