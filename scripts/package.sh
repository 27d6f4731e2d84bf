#!/usr/bin/env bash
# Builds the files to install, under target/release/sync_ext-pg15 and so on.
set -euo pipefail
. "$(dirname "$0")/build.sh"
cd "$root"
cargo pgrx package --no-default-features --features "pg$pg" --pg-config "$SYNC_EXT_PG_BIN/pg_config"
