#!/usr/bin/env bash
# Installs into the user's own Postgres, the one of PG_CONFIG.
set -euo pipefail
. "$(dirname "$0")/env.sh"
pg_config=$(command -v "${PG_CONFIG:-pg_config}") || die "no pg_config found; set PG_CONFIG to its path"
pg=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
"$root/scripts/setup.sh" "$pg"
cd "$root"
sudo=()
[ -w "$("$pg_config" --sharedir)/extension" ] || sudo=(--sudo)
cargo pgrx install --release --no-default-features --features "pg$pg" --pg-config "$pg_config" "${sudo[@]}"
