#!/usr/bin/env bash
# Licenses, advisories and sources of what the project depends on, by cargo-deny.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
command -v cargo-deny >/dev/null || install_cargo_tool cargo-deny 0.20.2
cd "$root"
exec cargo deny --workspace --all-features check "$@"
