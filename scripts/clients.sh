#!/usr/bin/env bash
# Builds, typechecks and tests packages of clients/, all of them by default, against the
# extension and the gateway as they are built. Usage: scripts/clients.sh [PACKAGE ...]
# or scripts/clients.sh --run PACKAGE SCRIPT [ARGUMENT ...] for one of its other scripts.
set -euo pipefail
. "$(dirname "$0")/build.sh"
. "$root/scripts/packages.sh"
# Distributions may have an older Node than the packages need.
has_node() {
  command -v node >/dev/null && command -v npm >/dev/null &&
    node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)'
}
has_node || export PATH="$root/target/node/node_modules/.bin:$PATH"
has_node || {
  command -v npm >/dev/null || install_packages nodejs npm
  say "fetching Node 22"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$root/target/node" \
    "node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')@22" npm@10
  hash -r
}
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
# Where there is no Chromium, tests in a browser are skipped.
provide_browser() {
  if [ -z "${CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
    (install_packages chromium) || say "Chromium cannot be installed: what needs it is not tested"
  fi
}

if [ "${1:-}" = --run ]; then
  [ "$2" != typescript/browser ] || provide_browser
  cd "$2"
  exec npm run --silent "$3" -- "${@:4}"
fi
[ $# -gt 0 ] || set -- typescript typescript/browser or3 demo proof
for package in "$@"; do
  case "$package" in demo | typescript/browser) provide_browser ;; esac
  for step in build typecheck test; do
    say "$step of clients/$package"
    (cd "$package" && npm run --silent --if-present "$step")
  done
done
