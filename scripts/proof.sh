#!/usr/bin/env bash
# The long form of the tests. Usage: scripts/proof.sh [--seed N] [--minutes N] [PART...]
# with PART small-world or one of those of tests/proof; without one, all.
set -euo pipefail
. "$(dirname "$0")/build.sh"
cd "$root"

options=() parts=()
while [ $# -gt 0 ]; do
  case "$1" in
    --*) options+=("$1" "${2:?"$1 needs a number"}"); shift 2 ;;
    *) parts+=("$1"); shift ;;
  esac
done
wants_small_world=
others=()
for part in "${parts[@]}"; do
  if [ "$part" = small-world ]; then wants_small_world=1; else others+=("$part"); fi
done

if [ -n "$wants_small_world" ] || [ ${#parts[@]} -eq 0 ]; then
  say "every history of a small world"
  SYNC_EXT_SMALL_WORLD=3 cargo test --quiet --release --package sync_ext_core --lib -- small_world --nocapture
fi
if [ ${#others[@]} -gt 0 ] || [ ${#parts[@]} -eq 0 ]; then
  install_extension
  say "building the proof"
  cargo build --quiet --release --package sync_ext_proof
  say "the proof on Postgres $pg"
  exec "$root/target/release/proof" "${options[@]}" "${others[@]}"
fi
