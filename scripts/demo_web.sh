#!/usr/bin/env bash
# Two devices in a browser beside a throw-away cluster, until Ctrl-C.
set -euo pipefail
. "$(dirname "$0")/build.sh"
install_extension
exec "$root/scripts/clients.sh" --run demo start
