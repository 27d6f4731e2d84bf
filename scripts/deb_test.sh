#!/usr/bin/env bash
# Installs the packages of target/deb into a bare Debian of this machine's release, tries
# them there by README.md and gateway/README.md, and purges them. Needs root.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$root/scripts/packages.sh"
pg=$(choose_pg)
packages=("$root/target/deb/postgresql-$pg-sync-ext"_*.deb "$root"/target/deb/sync-ext-gateway_*.deb)
[ -e "${packages[0]}" ] || PG=$pg "$root/scripts/deb.sh"
[ "$(id -u)" -eq 0 ] || exec sudo PG="$pg" "$0"
install_packages debootstrap iproute2
find_mirror
[ -n "$mirror" ] || die "this machine's sources name no mirror of Debian"

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
work=$root/target/deb/test bare=$root/target/deb/test/root
say "making a bare Debian $suite"
rm -rf "$bare"
mkdir -p "$work/cache"
debootstrap --variant=minbase --include=ca-certificates,curl --cache-dir="$work/cache" \
  "$suite" "$bare" "$mirror" >"$work/log" 2>&1 || { tail "$work/log"; die "debootstrap failed"; }
# Where the machine has Postgres from its own project, so has the bare Debian.
for source in /etc/apt/sources.list.d/pgdg.* /usr/share/postgresql-common/pgdg/*; do
  [ -e "$source" ] && install -D -m 644 "$source" "$bare$source"
done
# Packages ask it whether they may start services.
printf '#!/bin/sh\nexit 101\n' >"$bare/usr/sbin/policy-rc.d"
chmod +x "$bare/usr/sbin/policy-rc.d"

mkdir "$bare/try"
cp "${packages[@]}" "$root/scripts/deb_try.sh" "$bare/try"
sql() { awk '/^```/ { inside = ($0 == "```sql"); next } inside' "$1"; }
sql "$root/README.md" >"$bare/try/tour.sql"
# Its first block, for the role and the database of the packaged settings.
sql "$root/gateway/README.md" | sed 's/\bgateway\b/sync_ext_gateway/' >"$bare/try/gateway.sql"

in_bare() { chroot "$bare" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
say "fetching what the packages depend on"
in_bare sh -c 'apt-get update -qq && apt-get install -qq -y --download-only --no-install-recommends /try/*.deb' >>"$work/log"

# From here on without a network, and with processes and mounts that end with it.
export -f in_bare
export bare pg
unshare --net --mount --pid --fork --kill-child bash -euc '
  ip link set lo up
  mount -t proc proc "$bare/proc"
  mount -t devpts devpts "$bare/dev/pts"
  in_bare bash /try/deb_try.sh "$pg"'
rm -rf "$bare"
