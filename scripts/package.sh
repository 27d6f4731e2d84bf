#!/usr/bin/env bash
# Builds the files to install, laid out for the Postgres of PG_CONFIG or the
# system's, under target/release/sync_ext-pg15 and so on.
set -euo pipefail
. "$(dirname "$0")/build.sh"
cd "$root"
pg_config=${PG_CONFIG:-/usr/lib/postgresql/$pg/bin/pg_config}
[ -x "$pg_config" ] || pg_config=$SYNC_EXT_PG_BIN/pg_config
cargo pgrx package --no-default-features --features "pg$pg" --pg-config "$pg_config"
# The router is no extension: its script is for psql, and those beside it are for a shell.
contrib=target/release/sync_ext-pg$pg$("$pg_config" --sharedir)/contrib/sync_ext
install -D -m 644 -t "$contrib" sql/router/*.sql
cp --preserve=mode tools/*.sh "$contrib"
