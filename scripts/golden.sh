#!/usr/bin/env bash
# The golden SQL tests and the documents' examples alone; SYNC_EXT_ACCEPT=1 accepts their output.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
cargo test --package sync_ext_cluster --test golden --test readme -- --nocapture
