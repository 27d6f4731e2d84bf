#!/usr/bin/env bash
# Adds the packages of Postgres' own project to those of this Debian or Ubuntu: all majors.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
install_packages postgresql-common ca-certificates
as_root /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
