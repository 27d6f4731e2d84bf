#!/usr/bin/env bash
# Builds the extension for release and installs it into the private Postgres
# tree, then tells where things are: to be sourced.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

pg=$(choose_pg)
"$root/scripts/setup.sh" "$pg"
run=$(run_dir)
export SYNC_EXT_RUN_DIR=$run SYNC_EXT_PG_BIN=$run/pg$pg/bin

install_extension() {
  say "building the extension for Postgres $pg"
  (cd "$root" && cargo pgrx install --release --no-default-features --features "pg$pg" \
    --pg-config "$SYNC_EXT_PG_BIN/pg_config" >"$root/target/install.log" 2>&1) ||
    { cat "$root/target/install.log"; die "the extension does not build"; }
  # cargo-pgrx leaves the releases' scripts out, from which tests update.
  install -m 644 "$root"/sql/sync_ext--*.sql "$("$SYNC_EXT_PG_BIN/pg_config" --sharedir)/extension"
}
