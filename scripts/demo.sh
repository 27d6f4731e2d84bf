#!/usr/bin/env bash
# The main job on a throw-away cluster. PG=16 scripts/demo.sh for another major.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
say "building the demo"
cd "$root"
cargo build --quiet --release --package sync_ext_demo
exec "$root/target/release/sync_ext_demo"
