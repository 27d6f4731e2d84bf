#!/usr/bin/env bash
# Prints tests/mutations/README.md as the headers of the patches have it;
# --check fails if the file says anything else, or a patch does not fit the sources.
set -euo pipefail
cd "$(dirname "$0")/.."

header() { sed -n "s/^$2: //p" "$1" | head -n 1; }

table() {
  local area patch
  cat <<'TEXT'
# Bugs put in by hand

Written by `make mutations-table` from the headers of the patches; tests/README.md
says what they are for.
TEXT
  for area in tests/mutations/*/; do
    printf '\n## %s\n\n| bug | the promise it breaks | caught by |\n| --- | --- | --- |\n' "$(basename "$area")"
    for patch in "$area"*.patch; do
      printf '| `%s` | %s | `%s` |\n' "$(basename "$patch" .patch)" \
        "$(header "$patch" Breaks)" "$(header "$patch" 'Caught by')"
    done
  done
}

if [ "${1:-}" = --check ]; then
  table | cmp -s - tests/mutations/README.md ||
    { echo 'error: tests/mutations/README.md is out of date: make mutations-table' >&2; exit 1; }
  for patch in tests/mutations/*/*.patch; do
    patch --dry-run --silent --force -p1 --fuzz=0 <"$patch" >/dev/null ||
      { echo "error: $patch does not fit the sources" >&2; exit 1; }
  done
else
  table
fi
