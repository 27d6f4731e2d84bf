#!/usr/bin/env bash
# The gateway. `scripts/gateway.sh` starts it beside a throw-away
# cluster until Ctrl-C; `scripts/gateway.sh figures` measures it,
# `scripts/gateway.sh soak` keeps it busy for minutes (`soak short`: seconds), and
# `scripts/gateway.sh moves 3` simulates moves for so many minutes.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
say "building the gateway"
case "${1:-}" in
figures | moves | soak) exec cargo bench --quiet --package sync_ext_gateway --bench "$1" -- "${@:2}" ;;
esac
cargo build --quiet --release --package sync_ext_gateway --bins --examples
exec "$root/target/release/examples/beside_cluster"
