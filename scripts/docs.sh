#!/usr/bin/env bash
# The documents as a site, in target/docs/site. A link that leads nowhere is an error.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
material=9.8.2
work=$root/target/docs
if [ "$(cat "$work/venv/installed" 2>/dev/null)" != "$material" ]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
  say "fetching mkdocs-material"
  rm -rf "$work/venv"
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "mkdocs-material==$material"
  echo "$material" >"$work/venv/installed"
fi
cd "$root"
rm -rf "$work/pages"
mkdir -p "$work/pages"
# The documents, and what they show or link to.
git ls-files -z -- '*.md' '*.png' docs/site.css compose.yaml gateway/deploy clients/support/cluster.ts clients/typescript/src/store \
  tests/cluster/clients ':!.github' | xargs -0 cp --parents -t "$work/pages"
# The tests know some examples by a second word, which mkdocs does not expect.
find "$work/pages" -name '*.md' -exec sed -i -E 's/^(```[a-z]+) .*/\1/' {} +
# It would announce another program.
export NO_MKDOCS_2_WARNING=1
exec "$work/venv/bin/mkdocs" build --strict
