#!/usr/bin/env bash
# Upgrades a loaded cluster from the last release to what is here, and by pg_upgrade from
# Postgres 15 to 18: PG=16 LATER=17 scripts/upgrade_test.sh for others. The release is built
# from its tag, or from the commit in tests/upgrade/release, and installed by its frozen script.
set -euo pipefail
. "$(dirname "$0")/env.sh"
pg=$(choose_pg) later=${LATER:-18}
for major in "$pg" "$later"; do
  "$root/scripts/setup.sh" "$major"
done
run=$(run_dir)
work=$root/target/upgrade trees=$run/upgrade
read -r version commit <"$root/tests/upgrade/release"
cd "$root"

# Trees of its own, so that releases are not installed into those of others.
rm -rf "$work" "$trees"
mkdir -p "$work/release" "$trees"
for major in "$pg" "$later"; do
  cp -a "$run/pg$major" "$trees"
  # Those of the fallback are links.
  [ ! -L "$run/pg$major" ] || [ -e "$trees/fallback" ] || cp -a "$run/fallback" "$trees"
  pg_config=$trees/pg$major/bin/pg_config
  rm -f "$($pg_config --sharedir)"/extension/sync_ext* "$($pg_config --pkglibdir)/sync_ext.so"
done

# Columns have an option since the minor releases of November 2026, which no pg_dump of before
# leaves out.
knows_option() { grep -q pg_attver "$trees/pg$1/bin/pg_dump"; }
if [ "$pg" -ge "$later" ]; then
  say "pg_upgrade is not tested: $later is not later than $pg"
  later=
elif knows_option "$pg" && ! knows_option "$later"; then
  say "pg_upgrade is not tested: it cannot upgrade $("$trees/pg$pg/bin/pg_config" --version) to an older" \
    "$("$trees/pg$later/bin/pg_config" --version); try PG=16"
  later=
fi

if git rev-parse --quiet --verify "v$version^{commit}" >/dev/null; then
  commit=v$version
elif ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
  git fetch --quiet --depth 1 origin "$commit"
fi
git archive "$commit" | tar -x -C "$work/release"

package() { # WHAT SOURCES MAJOR INTO
  say "building $1 for Postgres $3"
  # Both versions have this file, so cargo would take one for the other.
  rm -f "$CARGO_TARGET_DIR/debug/deps/libsync_ext.so"
  (cd "$2" && cargo pgrx package --debug --no-default-features --features "pg$3" \
    --pg-config "$trees/pg$3/bin/pg_config" --out-dir "$4") >"$work/log" 2>&1 ||
    { cat "$work/log"; die "it does not build"; }
}
package "$version" "$work/release" "$pg" "$work/old"
package "what is here" "$root" "$pg" "$work/new"
script=sync_ext--$version.sql
cmp "$(find "$work/old" -name "$script")" "sql/$script" || die "the release made another script"
# A package has the paths of its tree.
cp -rT "$work/old" /
if [ -n "$later" ]; then
  package "what is here" "$root" "$later" "$work/later"
  cp -rT "$work/later" /
  export SYNC_EXT_LATER_PG_BIN=$trees/pg$later/bin
fi

export SYNC_EXT_RUN_DIR=$run SYNC_EXT_RELEASE=$version SYNC_EXT_NEW=$work/new
export SYNC_EXT_PG_BIN=$trees/pg$pg/bin
say "building the test"
cargo build --quiet --package sync_ext_upgrade
"$root/target/debug/upgrade"
