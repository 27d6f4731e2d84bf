#!/usr/bin/env bash
# Two devices in a browser beside a throw-away cluster, until Ctrl-C.
# `scripts/demo_web.sh test` takes the tour of it in Chromium instead, if there is one.
set -euo pipefail
. "$(dirname "$0")/build.sh"
. "$root/scripts/packages.sh"
install_extension
say "building the gateway"
cd "$root"
cargo build --quiet --release --package sync_ext_gateway --bins
export SYNC_EXT_GATEWAY=$root/target/release/sync_ext_gateway

command -v npm >/dev/null || install_packages nodejs npm
node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)' ||
  die "the demo needs Node 20.19 or later, not $(node --version); see https://nodejs.org"
cd clients
say "fetching the packages of the demo"
npm ci --silent --no-audit --no-fund
cd demo
[ "${1:-}" = test ] && exec npm test
say "building the demo"
npm run --silent build -- --logLevel warn
exec ../node_modules/.bin/vite preview
