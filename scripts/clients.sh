#!/usr/bin/env bash
# Builds, typechecks and tests packages of clients/, all of them by default, against the
# extension and the gateway as they are built. Usage: scripts/clients.sh [PACKAGE ...]
set -euo pipefail
. "$(dirname "$0")/build.sh"
. "$root/scripts/packages.sh"
command -v node >/dev/null && command -v npm >/dev/null || install_packages nodejs npm
node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' || die "clients/ needs Node 20 or later"
[ -e "$("$SYNC_EXT_PG_BIN/pg_config" --sharedir)/extension/sync_ext.control" ] || install_extension
say "building the gateway"
cargo build --quiet --manifest-path "$root/Cargo.toml" --package sync_ext_gateway
export SYNC_EXT_GATEWAY=$root/target/debug/sync_ext_gateway

cd "$root/clients"
installed=node_modules/.package-lock.installed
if ! cmp -s package-lock.json "$installed"; then
  say "fetching the packages of clients/"
  npm ci --silent --no-audit --no-fund --ignore-scripts
  cp package-lock.json "$installed"
fi
if [ $# -eq 0 ]; then
  set -- */package.json
  set -- "${@%/package.json}"
fi
for package in "$@"; do
  for step in build typecheck test; do
    say "$step of clients/$package"
    npm run --silent "$step" --workspace "$package"
  done
done
