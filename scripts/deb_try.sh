#!/usr/bin/env bash
# Inside of the bare Debian of deb_test.sh: installs, tries and purges the packages in /try.
set -euo pipefail
pg=$1
run() {
  printf '\n$ %s\n' "$*"
  "$@"
}
as() { runuser -u "$1" -- "${@:2}"; }

run apt-get install -qq -y --no-install-recommends "/try/postgresql-$pg-sync-ext"_*.deb /try/sync-ext-gateway_*.deb | grep sync-ext
run dpkg -L "postgresql-$pg-sync-ext" sync-ext-gateway

run pg_conftool "$pg" main set port 5432
run pg_ctlcluster "$pg" main start
run as postgres createdb app
run as postgres psql -XqA -v ON_ERROR_STOP=1 app -f /try/tour.sql

# What the administrator writes into the settings stays.
echo '# ours' >>/etc/default/sync-ext-gateway
run dpkg --install /try/sync-ext-gateway_*.deb
run tail -n 1 /etc/default/sync-ext-gateway

unit=$(dpkg -L sync-ext-gateway | grep '\.service$')
setting() { sed -n "s/^$1=//p" "$unit"; }
run as postgres psql -XqA -v ON_ERROR_STOP=1 app -f /try/gateway.sql
printf '\n$ %s # as user %s, by %s\n' "$(setting ExecStart)" "$(setting User)" "$unit"
set -a
. "$(setting EnvironmentFile)"
set +a
ulimit -n "$(setting LimitNOFILE)"
user=$(setting User)
setpriv --reuid "$user" --regid "$user" --clear-groups $(setting ExecStart) &
url=http://127.0.0.1:8080
curl --silent --retry 20 --retry-delay 1 --retry-all-errors --fail "$url/health" >/dev/null
run curl --silent --show-error --fail "$url/health"
call=(curl --silent --show-error --fail -H 'x-user-id: ann' -H 'content-type: application/json')
run "${call[@]}" "$url/workspaces/team/push" -d '[{"tableName": "notes", "operation": "put",
  "pk": "n1", "payload": {"text": "milk"}, "stamp": {"deviceId": "phone", "clock": 1,
  "opId": "6f1c8a52-4d51-4a57-9f5c-0a3f1f6f0001", "hlc": "1767225600000:0000:phone"}}]'
run "${call[@]}" "$url/workspaces/team/pull" -d '{"cursor": 0}'
kill $!
wait $!

run pg_ctlcluster "$pg" main stop
run apt-get purge -qq -y "postgresql-$pg-sync-ext" sync-ext-gateway | grep sync-ext
left=$(find / -xdev \( -path /try -o -path /proc -o -path /var/cache/apt \) -prune -o \
  \( -name '*sync_ext*' -o -name '*sync-ext*' \) -print)
printf '\nfiles left: %s\n' "${left:-none}"
printf 'user left: %s\n' "$(getent passwd sync_ext_gateway || echo none)"
[ -z "$left" ] && ! getent passwd sync_ext_gateway
