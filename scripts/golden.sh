#!/usr/bin/env bash
# The golden SQL tests and the documents' examples alone; SYNC_EXT_ACCEPT=1 accepts their output.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
# One after the other: two of them may write to the same document.
cargo test --package sync_ext_tests -- documents:: --nocapture --test-threads 1
