#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/env.sh"
run=$(run_dir)
rm -rf "$run" "$root/target" "$root/clients/node_modules" "$root"/clients/*/dist
