#!/usr/bin/env bash
# Records what a device says to this version and what is answered, in tests/wire.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
cd "$root"
export SYNC_EXT_RECORD=1
cargo test --quiet --package sync_ext_tests -- wire::
cargo test --quiet --package sync_ext_gateway --test gateway -- wire::
