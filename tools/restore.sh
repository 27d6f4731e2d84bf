#!/usr/bin/env bash
# Before a restored server of several is opened: what it lost the departure of is disowned, and what
# it lost the arrival of is imported again.
#
#   restore.sh --server URL --name NAME --buckets 0-511 --others FILE [--placed FILE] [--dry-run]
#
#   --server   where psql connects as a superuser, to the database itself, not to a pooler. It has
#              run with default_transaction_read_only = on since its first start
#   --name     as the map calls it
#   --buckets  those that the map gives to it
#   --others   all other servers: lines of a name and a URL
#   --placed   the map's exceptions, also those of other servers: lines of workspace_id,server as CSV
#   --dry-run  says what would be done, and changes nothing
#
# A command that was broken off goes on when it is repeated. docs/scaling.md describes it.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

placed=''
options server name buckets others -- placed -- dry-run -- "$@"
buckets=$(buckets_of "$buckets")
declare -A urls=()
while read -r other url || [ -n "$other" ]; do
  [ -z "$other" ] || urls[$other]=$url
done <"$others"
server() { on "$server" -v name="$name" -v buckets="$buckets" "$@"; }

# What the other servers have: workspaces that they serve, that are arriving there, and that have
# departed from there to here, with their rows.
told() {
  local other
  for other in "${!urls[@]}"; do
    on "${urls[$other]}" -v name="$name" -v other="$other" <<'SQL'
copy (
  select workspace_id, :'other', coalesce(w.away, 'served'), m.move_id, m.at
  from sync_ext.workspace as w left join sync_ext.move as m using (workspace_id)
  where w.away is null or w.away = 'arriving' or m.role = 'departed' and m.peer = :'name'
) to stdout (format csv);
SQL
  done
}

# Temporary tables of what is to be done.
facts() {
  table_of placed 'workspace_id text collate "C" primary key, server text not null' lines_of "$placed"
  table_of told 'workspace_id text collate "C", server text, state text, move_id uuid, at timestamptz' told
  cat <<'SQL'
create temp table served as select workspace_id, min(server) as server from told where state = 'served' group by 1;
create temp table known as
select workspace_id, w.away, w.workspace_key is not null and w.away is null as is_served, m.role, m.move_id,
  p.server as placed_at, s.server as served_at, sync_ext.bucket_of(workspace_id) = any (:'buckets') as is_own
from sync_ext.workspace as w
full join sync_ext.move as m using (workspace_id)
full join placed as p using (workspace_id)
full join served as s using (workspace_id);
-- The last departure to here, if its arrival is not known here and nobody has it now.
create temp table lost as
select distinct on (t.workspace_id) t.workspace_id, t.server, t.move_id, k.role, k.move_id is not distinct from t.move_id as is_begun
from told as t join known as k using (workspace_id)
where t.state = 'departed' and k.served_at is null
order by t.workspace_id, t.at desc;
delete from lost where is_begun and role = 'arrived';
-- To whom: who serves it now, or where the map places it.
create temp table elsewhere as
select workspace_id, coalesce(served_at, nullif(placed_at, :'name')) as server, is_served, served_at is null as is_nowhere
from known
where (served_at is not null or placed_at <> :'name' or placed_at is null and not is_own)
  and (is_served or role in ('departing', 'arriving', 'arrived') or is_own and role is distinct from 'departed')
  and workspace_id not in (select workspace_id from lost);
-- Moves from here, of which the copy may be ahead of what is here.
create temp table unfinished as
select t.workspace_id, t.server, t.move_id from told as t join known as k using (workspace_id)
where t.state = 'arriving' and k.is_served and workspace_id not in (select workspace_id from elsewhere);
SQL
}

plan() {
  {
    facts
    cat <<'SQL'
select format('disown "%s"', workspace_id) || coalesce(', which is at ' || server, '')
  || case when is_served and is_nowhere then '; no server serves it' else '' end
from elsewhere order by workspace_id;
select format('give up the move of "%s" to %s', workspace_id, server) from unfinished order by workspace_id;
select format('import "%s" again, from %s', workspace_id, server) from lost order by workspace_id;
select format('"%s" is lost: it is placed here, but no server has it', workspace_id) from known
where placed_at = :'name' and not is_served and served_at is null and workspace_id not in (select workspace_id from lost)
order by workspace_id;
SQL
  } | server
}

unfinished_at() { # SERVER
  {
    facts
    echo "copy (select workspace_id, move_id from unfinished where server = :'other') to stdout (format csv);"
  } | server -v other="$1"
}

give_up_moves() {
  local other
  for other in "${!urls[@]}"; do
    {
      table_of unfinished 'workspace_id text, move_id uuid' unfinished_at "$other"
      echo 'select count(sync_import_cancel(workspace_id, move_id)) from unfinished \g /dev/null'
    } | on "${urls[$other]}"
  done
}

disown() {
  {
    echo 'begin;'
    facts
    cat <<'SQL'
select sync_own_buckets(:'buckets') \g /dev/null
select count(sync_export_cancel(workspace_id, move_id)) from known
where role = 'departing' and is_served and workspace_id not in (select workspace_id from elsewhere) \g /dev/null
select sync_disown(array_agg(workspace_id), server) from elsewhere group by server \g /dev/null
-- What is imported again has an older copy here, or what it left.
select sync_disown(array_agg(workspace_id)) from lost where not is_begun having count(*) > 0 \g /dev/null
-- What is here without its bucket is an exception here too.
create temp table exception as
select array_agg(workspace_id) as names, gen_random_uuid() as id from known
where is_served and placed_at = :'name' and not is_own and role is distinct from 'arrived'
  and workspace_id not in (select workspace_id from elsewhere union select workspace_id from lost);
select sync_split_depart(id, null, names, :'name', batch_size => 1000000) from exception \g /dev/null
select sync_split_arrive(id, 1000000) from exception \g /dev/null
select sync_disown() \g /dev/null
commit;
SQL
  } | server
}

# What is to be imported again, a line each: the name in hexadecimal digits, the move, the server.
lost() {
  {
    facts
    echo "select encode(convert_to(workspace_id, 'UTF8'), 'hex'), move_id, server from lost order by workspace_id;"
  } | server -F ' '
}

workspace="convert_from(decode(:'hex', 'hex'), 'UTF8')"
there() { # CALL OPTION...: its reply, as CSV
  on "${urls[$from]}" -v name="$name" -v hex="$hex" -v id="$id" "${@:2}" \
    <<<"copy (select $1) to stdout (format csv);"
}

# The rows there do not change any more. Prints the version that all is here up to, or nothing, and
# where to go on.
import_page() { # POSITION
  {
    if [ -z "$1" ]; then
      table_of page 'page json' there "sync_export_begin($workspace, :'id', :'name')"
      echo "create temp table done as select sync_import_begin($workspace, :'id',
        (page::jsonb || jsonb_build_object('server', :'from'))::json) as reply from page;"
    else
      table_of page 'page json' there "sync_export_page($workspace, :'id', :'position')" -v position="$1"
      echo "create temp table done as select sync_import_page($workspace, :'id', page) as reply from page;"
    fi
    echo "select case when reply ->> 'isComplete' = 'true' and reply ->> 'through' = page ->> 'serverVersion'
        then reply ->> 'through' end, reply ->> 'position' from done, page;"
  } | server -v hex="$hex" -v id="$id" -v from="$from" -F $'\n'
}

import() { # HEX MOVE_ID SERVER
  local hex=$1 id=$2 from=$3 reply through='' position=''
  while [ -z "$through" ]; do
    reply=$(import_page "$position")
    through=${reply%%$'\n'*} position=${reply#*$'\n'}
  done
  {
    table_of last 'page json' there "sync_export_depart($workspace, :'id', :through)" -v through="$through"
    echo "select sync_import_arrive($workspace, :'id', page) from last \g /dev/null"
  } | server -v hex="$hex" -v id="$id"
}

# Of all servers this one serves what the map places here, and nothing else.
verify() {
  {
    facts
    cat <<'SQL'
select count(*) = 0, 'has nothing that another server serves' from known where is_served and served_at is not null;
select count(*) = 0, 'has nothing that the map places elsewhere' from known
where is_served and (placed_at <> :'name' or placed_at is null and not is_own);
select count(*) = 0, 'has everything that another server keeps for it' from lost;
select count(*) = 0, 'has no move that it began' from known where role = 'departing';
select format('t|serves %s workspaces', count(*)) from known where is_served;
SQL
  } | server
}

missing=$({
  table_of placed 'workspace_id text, server text' lines_of "$placed"
  echo "select distinct server from placed where server <> all (string_to_array(:'known', ' '));"
} | server -v known="$name ${!urls[*]}")
[ "${#urls[@]}" -gt 0 ] && [ -z "$missing" ] || die "$others does not have all other servers: $missing"
is_closed=$(server <<<"select reset_val = 'on' from pg_settings where name = 'default_transaction_read_only';")
if [ "$is_closed" = t ]; then
  plan >&2
  [ "$mode" != dry-run ] || exit 0
  give_up_moves
  disown
  lines=$(lost)
  while read -r hex id from; do
    [ -z "$hex" ] || import "$hex" "$id" "$from"
  done <<<"$lines"
fi
checks=$(verify)
report "the restored server, $name:" "$checks"
if [ "$is_closed" = t ]; then
  [ "$failures" -eq 0 ] || die "it is not opened"
  server <<'SQL'
alter system reset default_transaction_read_only;
select pg_reload_conf() \g /dev/null
SQL
fi
[ "$failures" -eq 0 ] || die "it is open, and may have taken pushes: restore it again, with default_transaction_read_only = on"
say "done: $name is open"
