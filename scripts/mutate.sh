#!/usr/bin/env bash
# Tests the tests: puts each bug of tests/mutations into a copy of the project
# and demands that the test which the patch names fails, and that it passes
# without the bug. Usage: scripts/mutate.sh [AREA | AREA/NAME]..., all by default.
#
# A patch begins with lines that say what it breaks and what must catch it:
#   Breaks: the promise
#   Caught by: core PATH::OF::TEST | golden SCRIPT | cluster PATH::OF::TEST |
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
(cd "$root" && tar --exclude ./target --exclude ./.git --exclude node_modules -c .) | tar -x -C "$origin"

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

# KIND [FILE] NAME: a golden script is a test of the cluster tests.
catcher() {
  local test=${CATCHER:-$(header "$1" 'Caught by')}
  printf '%s' "${test/#golden /cluster documents::golden::}"
}
header() { sed -n "s/^$2: //p" "$1" | head -n 1; }

features=(--no-default-features --features "pg$pg")
build() { # KIND ...: what the test needs
  case "$1" in
    core) cargo test --quiet --package sync_ext_core --no-run ;;
    gateway) install && cargo test --quiet --package sync_ext_gateway --test gateway --no-run ;;
    proof) install && cargo test --quiet --package sync_ext_proof --no-run ;;
    *) install && cargo test --quiet --package sync_ext_tests --no-run ;;
  esac
}

install() { cargo pgrx install "${features[@]}" --pg-config "$SYNC_EXT_PG_BIN/pg_config"; }

run_test() { # SECONDS KIND [FILE] NAME...
  local cargo=(timeout "$1" cargo test --package)
  shift
  case "$1" in
    core) "${cargo[@]}" sync_ext_core --lib -- --exact "${@:2}" ;;
    cluster) "${cargo[@]}" sync_ext_tests -- --exact "${@:2}" ;;
    proof) "${cargo[@]}" sync_ext_proof --test "$2" -- --exact "${@:3}" ;;
    gateway) "${cargo[@]}" sync_ext_gateway --test gateway -- --exact "${@:2}" ;;
    *) die "no such kind of test: $*" ;;
  esac
}

# passed or failed, by what the harness says of this many tests; anything else
# (no such test, a time-out) is neither.
outcome() { # LOG COUNT
  if grep -q "^test result: ok. $2 passed" "$1"; then
    echo passed
  elif grep -q '^test result: FAILED. 0 passed; 1 failed' "$1"; then
    echo failed
  else
    echo neither
  fi
}

# Without a bug all of the named tests must pass.
check_sound() {
  local patch test kind log=$logs/unchanged.log total=0
  local -A names=()
  for patch in "${patches[@]}"; do
    test=$(catcher "$patch")
    [[ -n $(header "$patch" Breaks) && $test = *' '* ]] || die "$patch has no header"
    kind=${test% *}
    [[ " ${names[$kind]:-} " = *" ${test##* } "* ]] || names[$kind]+=" ${test##* }"
  done
  for kind in "${!names[@]}"; do
    read -r -a test <<<"$kind ${names[$kind]}"
    local count
    count=$(wc -w <<<"${names[$kind]}")
    build "${test[@]}" >"$log" 2>&1 || { tail -n 40 "$log"; die "the project does not build"; }
    run_test 1800 "${test[@]}" >"$log" 2>&1 || true
    [ "$(outcome "$log" "$count")" = passed ] ||
      { grep -A 9 '^failures:' "$log" | tail -n 40; die "not all of these pass without a bug: ${test[*]}"; }
    total=$((total + count))
  done
  say "the $total tests pass without a bug"
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
    run_test 300 "${test[@]}" >"$log" 2>&1 || true
    case "$(outcome "$log" 1)" in
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
for name in "$@"; do
  case "$name" in
    */*) patches+=("$copy/tests/mutations/$name.patch") ;;
    *) patches+=("$copy/tests/mutations/$name"/*.patch) ;;
  esac
done
[ ${#patches[@]} -gt 0 ] || patches=("$copy"/tests/mutations/*/*.patch)
scripts/mutations_table.sh --check
check_sound
uncaught=0
for patch in "${patches[@]}"; do
  try "$patch"
  [ "$result" = caught ] || uncaught=$((uncaught + 1))
  name=${patch#"$copy/tests/mutations/"}
  printf '%-56s %-60s %s\n' "${name%.patch}" "$(catcher "$patch")" "$result"
done
say "${#patches[@]} bugs, $uncaught of them not caught"
[ "$uncaught" -eq 0 ]
