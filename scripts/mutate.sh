#!/usr/bin/env bash
# Tests the tests: puts each bug of tests/mutations into a copy of the project
# and demands that the test which the patch names fails, and that it passes
# without the bug. Usage: scripts/mutate.sh [NAME...], all bugs by default.
#
# A patch begins with lines that say what it breaks and what must catch it:
#   Breaks: the promise
#   Caught by: unit PATH::OF::TEST | golden SCRIPT | cluster FILE TEST |
#     proof FILE TEST | gateway TEST
# CATCHER='proof simulation NAME' tries that test on all of them instead.
set -euo pipefail
. "$(dirname "$0")/env.sh"
pg=$(choose_pg)
copy=$root/target/mutations
logs=$copy/target/logs
mkdir -p "$logs"

# The working tree as it is now, so that it can be worked on meanwhile.
origin=$root/target/mutations.origin
rm -rf "$origin"
mkdir -p "$origin"
(cd "$root" && tar --exclude ./target --exclude ./.git -c .) | tar -x -C "$origin"

# Makes the copy like that. Only what differs is written, as of now, so that
# cargo sees every change, and that a patch is taken back is one.
refresh() {
  local file
  (cd "$origin" && find . -type f) | while IFS= read -r file; do
    cmp -s "$origin/$file" "$copy/$file" && continue
    mkdir -p "$copy/$(dirname "$file")"
    cp "$origin/$file" "$copy/$file"
  done
}

# From here on the copy's own target folder is used, Postgres tree included.
enter_copy() {
  refresh
  cd "$copy"
  "$copy/scripts/setup.sh" "$pg"
  . "$copy/scripts/env.sh"
  run=$(run_dir)
  export SYNC_EXT_RUN_DIR=$run SYNC_EXT_PG_BIN=$run/pg$pg/bin
  # Line numbers are enough; linking is most of the work.
  export CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_TEST_DEBUG=line-tables-only
  unset RUST_BACKTRACE
}

catcher() { printf '%s' "${CATCHER:-$(header "$1" 'Caught by')}"; }
header() { sed -n "s/^$2: //p" "$1" | head -n 1; }

features=(--no-default-features --features "pg$pg")
build() { # KIND ...: what the test needs
  case "$1" in
    unit) cargo test --quiet --lib --no-run "${features[@]}" ;;
    gateway) install && cargo test --quiet --package sync_ext_gateway --test gateway --no-run ;;
    *) install && cargo test --quiet --package sync_ext_cluster --package sync_ext_proof --no-run ;;
  esac
}

install() { cargo pgrx install "${features[@]}" --pg-config "$SYNC_EXT_PG_BIN/pg_config"; }

run_test() { # KIND NAME [TEST]
  case "$1" in
    unit) timeout 300 cargo test --lib "${features[@]}" -- --exact "$2" ;;
    golden)
      SYNC_EXT_GOLDEN=$2 timeout 300 cargo test --package sync_ext_cluster --test golden -- \
        --exact psql_prints_what_is_expected --nocapture
      ;;
    gateway) timeout 300 cargo test --package sync_ext_gateway --test gateway -- --exact "$2" ;;
    cluster | proof) timeout 300 cargo test --package "sync_ext_$1" --test "$2" -- --exact "$3" ;;
    *) die "no such kind of test: $*" ;;
  esac
}

# passed or failed, by what the harness says of exactly one test; anything else
# (no such test, a time-out) is neither.
outcome() { # LOG
  if grep -q '^test result: ok. 1 passed' "$1"; then
    echo passed
  elif grep -q '^test result: FAILED. 0 passed; 1 failed' "$1"; then
    echo failed
  else
    echo neither
  fi
}

# Without a bug each of the named tests must pass.
check_sound() {
  local patch test log=$logs/unchanged.log
  local -A seen=()
  for patch in "${patches[@]}"; do
    read -r -a test <<<"$(catcher "$patch")"
    { [ -n "$(header "$patch" Breaks)" ] && [ ${#test[@]} -gt 1 ]; } || die "$patch has no header"
    grep -q "^| \`$(basename "$patch" .patch)\` |" tests/README.md ||
      die "tests/README.md does not tell of $patch"
    [ -z "${seen[${test[*]}]:-}" ] || continue
    seen[${test[*]}]=yes
    build "${test[@]}" >"$log" 2>&1 || { tail -n 40 "$log"; die "the project does not build"; }
    run_test "${test[@]}" >"$log" 2>&1 || true
    [ "$(outcome "$log")" = passed ] ||
      { tail -n 40 "$log"; die "this test does not pass without a bug: ${test[*]}"; }
  done
  say "the ${#seen[@]} tests pass without a bug"
}

try() { # PATCH: sets result
  local test log
  log=$logs/$(basename "$1" .patch).log
  read -r -a test <<<"$(catcher "$1")"
  if ! patch --strip 1 --fuzz 0 --forward --silent --reject-file - <"$1" >"$log" 2>&1; then
    result="does not apply"
  elif ! build "${test[@]}" >>"$log" 2>&1; then
    result="does not build"
  else
    run_test "${test[@]}" >"$log" 2>&1 || true
    case "$(outcome "$log")" in
      failed) result=caught ;;
      passed) result=SURVIVES ;;
      *) result="ends in another way, see $log" ;;
    esac
  fi
  refresh
}

rm -rf "$copy/tests/mutations"
enter_copy
patches=()
for name in "$@"; do patches+=("$copy/tests/mutations/$name.patch"); done
[ ${#patches[@]} -gt 0 ] || patches=("$copy"/tests/mutations/*.patch)
check_sound
uncaught=0
for patch in "${patches[@]}"; do
  try "$patch"
  [ "$result" = caught ] || uncaught=$((uncaught + 1))
  printf '%-44s %-50s %s\n' "$(basename "$patch" .patch)" "$(catcher "$patch")" "$result"
done
say "${#patches[@]} bugs, $uncaught of them not caught"
[ "$uncaught" -eq 0 ]
