#!/usr/bin/env bash
# All tests against all four majors of Postgres; the first failure ends it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
for major in 15 16 17 18; do
  say "Postgres $major"
  PG=$major "$root/scripts/test.sh" || die "the tests fail on Postgres $major"
done
say "the tests pass on Postgres 15, 16, 17 and 18"
