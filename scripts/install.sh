#!/usr/bin/env bash
# Installs into the user's own Postgres, the one of PG_CONFIG.
set -euo pipefail
. "$(dirname "$0")/env.sh"
PG_CONFIG=$(command -v "${PG_CONFIG:-pg_config}") || die "no pg_config found; set PG_CONFIG to its path"
export PG_CONFIG
pg=$(unset PG && choose_pg)
"$root/scripts/setup.sh" "$pg"
cd "$root"
share=$("$PG_CONFIG" --sharedir) sudo=
[ -w "$share/extension" ] || sudo=sudo
cargo pgrx install --release --no-default-features --features "pg$pg" --pg-config "$PG_CONFIG" ${sudo:+--sudo}
# The router is no extension: its script is for psql, and those beside it are for a shell.
$sudo install -D -m 644 -t "$share/contrib/sync_ext" sql/router/*.sql
$sudo cp --preserve=mode tools/*.sh "$share/contrib/sync_ext"
