#!/usr/bin/env bash
# Moves workspaces of sync_ext from one server to another, many at once, by logical replication.
#
#   move_many.sh --from URL --to URL --from-name NAME --to-name NAME --names FILE
#                [--source CONNINFO] [--map COMMAND] [--dry-run | --cancel | --forget]
#
#   --from, --to            where psql connects as a superuser, to the database itself, not to a pooler
#   --from-name, --to-name  as the map calls the servers
#   --names                 the workspaces, one a line, as CSV
#   --source                where the new server finds the old one, as libpq reads it (default: --from)
#   --map                   run when the new server serves, to change the map; safe to repeat
#   --max-lag, --timeout    how far the copy may be behind before the workspaces depart, in bytes
#                           (1 MB), and how long to wait for that, and afterwards, in seconds (60)
#   --dry-run               checks, says what would be done, and changes nothing
#   --cancel                takes everything back, until the workspaces depart
#   --forget                when the new server is in its backups: the old one erases its rows
#
# A command that was broken off goes on when it is repeated. docs/scaling.md describes it.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

source='' map='' max_lag=$((1024 * 1024)) timeout=60
options from to from-name to-name names -- source map max-lag timeout -- dry-run cancel forget -- "$@"
[ "$from_name" != "$to_name" ] || die "both servers are called $from_name"
id=$({ echo "$from_name $to_name"; LC_ALL=C sort "$names"; } | md5sum | cut -c 1-32)
# Of the publication, the slot and the subscription.
link=sync_ext_move_$id
variables=(-v id="$id" -v link="$link" -v from_name="$from_name" -v to_name="$to_name" -v max_lag="$max_lag")
from() { by_key | on "$from" "${variables[@]}" "$@"; }
to() { by_key | on "$to" "${variables[@]}" "$@"; }

# All looks up some names and keys, and nobody knows statistics of what was just copied. To the
# planner the scans that remain seem to be worth compiling.
by_key() {
  echo 'set enable_seqscan = off; set jit = off;'
  cat
}

# A temporary table of the names, in which moved is what a server knows of this move.
names() {
  table_of name 'workspace_id text collate "C" primary key' lines_of "$names"
  cat <<'SQL'
create temp view moved as
select m.* from name join sync_ext.move as m using (workspace_id) where m.move_id = :'id';
SQL
}

# What a query at the old server tells, as CSV.
told() { # QUERY
  { names; printf 'copy (%s) to stdout (format csv);\n' "$(tr '\n' ' ' <<<"$1")"; } | from
}

# Whether so many of the names have this role on a server: all, some or none.
role() { # from | to ROLE
  { names; cat <<SQL
select case count(*) filter (where m.role = '$2') when count(*) then 'all' when 0 then 'none' else 'some' end
from name left join moved as m using (workspace_id);
SQL
  } | "$1"
}

columns="select string_agg(concat_ws(' ', attrelid::regclass, attname, atttypid::regtype), ',' order by attrelid::regclass::text, attnum)
  from pg_attribute where attnum > 0 and not attisdropped
    and attrelid in ('sync_ext.change_log'::regclass, 'sync_ext.record'::regclass, 'sync_ext.device_cursor'::regclass)"

check_from() {
  {
    names
    cat <<'SQL'
select count(*) > 0, format('has the %s workspaces', count(*)) from name;
select false, format('workspace "%s" %s', workspace_id, case
  when w.workspace_key is null then 'does not exist'
  when m.role in ('departing', 'arriving') or w.away is not null then 'is being moved'
  else format('has rows of the attached table "%s"', t.table_name)
end)
from name
left join sync_ext.workspace as w using (workspace_id)
left join sync_ext.move as m using (workspace_id)
left join lateral (
  select t.table_name from sync_ext.synced_table as t
  where t.relation is not null
    and exists (select from sync_ext.record as r where r.workspace_key = w.workspace_key and r.table_name = t.table_name)
  limit 1
) as t on true
where m.move_id is distinct from :'id'
    and (w.workspace_key is null or w.away is not null or m.role in ('departing', 'arriving'))
  or t.table_name is not null
order by workspace_id limit 20;
select current_setting('wal_level') = 'logical', 'has wal_level = logical';
select exists (select from pg_replication_slots where slot_name = :'link')
    or current_setting('max_replication_slots')::int - count(*) >= 2,
  'has slots to spare' from pg_replication_slots;
SQL
  } | from
}

check_to() {
  {
    names
    table_of there 'workspace_id text, workspace_key bigint' told \
      'select workspace_id, workspace_key from name join sync_ext.workspace using (workspace_id)'
    table_of agreed 'version text, tables text, membership_function text, columns text' told \
      "select a ->> 'version', a -> 'tables', a ->> 'membershipFunction', ($columns) from sync_ext.agreed() as a"
    cat <<SQL
select a.version = b ->> 'version' and a.tables::jsonb = (b -> 'tables')::jsonb
    and coalesce(a.membership_function, '') = b ->> 'membershipFunction' and a.columns = ($columns),
  'has the same version, registered tables, membership function and columns'
from agreed as a, sync_ext.agreed() as b;
select not exists (select from there where workspace_key >> 40 = last_value >> 40),
  format('takes its keys from another range, %s', last_value >> 40)
from sync_ext.workspace_workspace_key_seq;
select false, format('workspace "%s" %s', workspace_id, case
  when w.workspace_key is null then 'has left rows with its key: call sync_gc until they are erased'
  else 'exists'
end)
from there as t
left join sync_ext.workspace as w using (workspace_id)
where not exists (select from moved as m where m.workspace_id = t.workspace_id and m.role in ('arriving', 'arrived'))
  and (w.workspace_key is not null
    or exists (select from sync_ext.workspace as k where k.workspace_key = t.workspace_key)
    or exists (select from sync_ext.dropped_workspace as k where k.workspace_key = t.workspace_key)
    or exists (select from sync_ext.change_log as k where k.workspace_key = t.workspace_key)
    or exists (select from sync_ext.record as k where k.workspace_key = t.workspace_key)
    or exists (select from sync_ext.device_cursor as k where k.workspace_key = t.workspace_key))
order by workspace_id limit 20;
select exists (select from pg_subscription where subname = :'link')
    or current_setting('max_logical_replication_workers')::int - count(*) >= 2,
  'has logical replication workers to spare' from pg_stat_subscription where pid is not null;
SQL
  } | to
}

# Both sides know of it, and the new one has the keys of the old one.
begin() {
  {
    table_of begun 'workspace_id text, reply json' told \
      "select workspace_id, sync_export_begin(workspace_id, :'id', :'to_name') from name order by workspace_id"
    cat <<'SQL'
select count(sync_import_begin(workspace_id, :'id',
  (reply::jsonb || jsonb_build_object('server', :'from_name'))::json, keep_key => true)) from begun \g /dev/null
SQL
  } | to
}

subscribe() {
  { names; cat <<'SQL'
select format('create publication %1$I for table sync_ext.change_log where (%2$s), table sync_ext.record where (%2$s),
  table sync_ext.device_cursor where (%2$s)', :'link', keys)
from (select format('workspace_key in (%s)', string_agg(workspace_key::text, ',')) as keys from moved) as k
where not exists (select from pg_publication where pubname = :'link') \gexec
-- Waits for the transactions that run.
set lock_timeout = 0;
select pg_create_logical_replication_slot(:'link', 'pgoutput')
where not exists (select from pg_replication_slots where slot_name = :'link') \g /dev/null
SQL
  } | from
  # The slot goes with the subscription.
  to -v source="${source:-$from}" <<'SQL'
select format('create subscription %1$I connection %2$L publication %1$I with (create_slot = false, slot_name = %1$I)', :'link', :'source')
where not exists (select from pg_subscription where subname = :'link') \gexec
SQL
}

is_copied() {
  to <<'SQL'
select count(*) = 3 and bool_and(srsubstate = 'r')
from pg_subscription_rel join pg_subscription as s on s.oid = srsubid where subname = :'link';
SQL
}

# The new server has all up to there on disk.
is_applied() { # LSN [BYTES]
  from -v lsn="$1" -v bytes="${2:-0}" <<'SQL'
select confirmed_flush_lsn + :bytes >= coalesce(nullif(:'lsn', '')::pg_lsn, pg_current_wal_insert_lsn())
from pg_replication_slots where slot_name = :'link';
SQL
}

is_near() { is_applied '' "$max_lag"; }

# All of them or none. Pushes to them wait for this, and are refused afterwards.
depart() {
  {
    echo 'begin;'
    names
    cat <<'SQL'
select count(*) from (
  select from name join sync_ext.workspace as w using (workspace_id) order by workspace_id for update of w
) as locked \g /dev/null
select 1 / bool_and((sync_export_depart(workspace_id, :'id', w.head) ->> 'departed')::boolean)::int
from name join sync_ext.workspace as w using (workspace_id) \g /dev/null
commit;
SQL
  } | from
}

# Every entry and record, and at least the cursors that devices had when their workspaces departed.
compare() {
  local differing digest="coalesce(sum(('x' || left(md5(r::text), 16))::bit(64)::bigint::numeric), 0)"
  differing=$({
    names
    table_of departed 'workspace_id text, workspace_key bigint, last_page json, entries text, records text' told \
      "select workspace_id, workspace_key, last_page,
        (select concat(count(*), ' ', $digest) from sync_ext.change_log as r where r.workspace_key = m.workspace_key),
        (select concat(count(*), ' ', $digest) from sync_ext.record as r where r.workspace_key = m.workspace_key)
      from moved as m where role = 'departed'"
    cat <<SQL
create temp view there as
select t.* from departed as t join moved as m using (workspace_id) where m.role = 'arriving';
select format('  "%s": %s entries and %s records there, %s and %s here', workspace_id, t.entries, t.records, here.entries, here.records)
from there as t,
lateral (select
  (select concat(count(*), ' ', $digest) from sync_ext.change_log as r where r.workspace_key = t.workspace_key) as entries,
  (select concat(count(*), ' ', $digest) from sync_ext.record as r where r.workspace_key = t.workspace_key) as records
) as here
where (t.entries, t.records) is distinct from (here.entries, here.records)
union all
select format('  "%s": the device "%s" is missing, or behind', workspace_id, d.device_id)
from there as t,
json_to_recordset(t.last_page -> 'devices') as d (device_id text, user_id text, last_seen_version bigint)
where not exists (
  select from sync_ext.device_cursor as c
  where c.workspace_key = t.workspace_key and c.device_id = d.device_id and c.user_id = d.user_id
    and c.last_seen_version >= d.last_seen_version
);
SQL
  } | to)
  [ -z "$differing" ] || die "nobody serves the workspaces, because copies differ:
$differing
Repeat this. If it stays so, docs/scaling.md tells how these move by pages; their move_id is $id"
}

# An acknowledgement that comes late would lower a newer cursor.
unsubscribe() {
  to <<'SQL'
select format('drop subscription %I', subname) from pg_subscription where subname = :'link' \gexec
SQL
  from <<'SQL'
select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = :'link' \g /dev/null
select format('drop publication %I', pubname) from pg_publication where pubname = :'link' \gexec
SQL
}

# What replication has brought is a page; then the last one.
arrive() {
  {
    echo 'begin;'
    table_of there 'workspace_id text, last_page json' told "select workspace_id, last_page from moved where role = 'departed'"
    names
    cat <<'SQL'
select count(sync_import_page(workspace_id, :'id', json_build_object(
  'after', sync_ext.import_position(m), 'entries', '[]'::json, 'records', '[]'::json,
  'next', json_build_object('through', there.last_page -> 'serverVersion', 'hasGraves', true, 'graveTable', null, 'gravePk', null))))
from there join sync_ext.move as m using (workspace_id) \g /dev/null
select count(sync_import_arrive(workspace_id, :'id', there.last_page)) from there \g /dev/null
commit;
SQL
  } | to
}

cancel() {
  [ "$(role from departed)" = none ] || die "they have departed: there is only the way forward"
  [ "$(role to arrived)" = none ] || die "they have arrived"
  { names; echo "select count(sync_export_cancel(workspace_id, :'id')) from moved where role = 'departing' \g /dev/null"; } | from
  unsubscribe
  { names; echo "select count(sync_import_cancel(workspace_id, :'id')) from moved where role = 'arriving' \g /dev/null"; } | to
  say "$from_name serves them; sync_gc at $to_name erases what was copied"
}

forget() {
  [ "$(role to arrived)" = all ] || die "not all have arrived at $to_name"
  unsubscribe
  { names; echo "select count(sync_export_forget(workspace_id, :'id')) from moved where role = 'departed' \g /dev/null"; } | from
  say "$from_name has forgotten them; sync_gc erases their rows"
}

case $mode in
  cancel | forget)
    $mode
    exit
    ;;
esac

departed=$(role from departed)
[ "$departed" != some ] || die "some have departed by other means: finish their moves one by one"
if [ "$departed" = none ]; then
  checks=$(check_from)
  report "the old server, $from_name:" "$checks"
  checks=$(check_to)
  report "the new server, $to_name:" "$checks"
fi
if [ "$mode" = dry-run ]; then
  say "then: both servers begin the moves; the rows are replicated; the workspaces depart together; what the
new server has is compared, and it serves them"
  end_of_checks
  exit
fi
end_of_checks
if [ "$departed" = none ]; then
  say "copying"
  begin
  subscribe
  wait_until 1000000 is_copied
  wait_until "$timeout" is_near || die "the copy does not catch up: repeat this with more --max-lag, or --cancel"
  stop "stopping the service at $from_name"
  depart
fi
if [ "$(role to arrived)" != all ]; then
  if [ -n "$(to <<<"select 1 from pg_subscription where subname = :'link';")" ]; then
    lsn=$(from <<<'select pg_current_wal_insert_lsn();')
    wait_until "$timeout" is_applied "$lsn" || die "the copy is not complete, and nobody serves the workspaces: repeat this"
  fi
  compare
  unsubscribe
  say "starting the service at $to_name"
  arrive
  serves
fi
unsubscribe
[ -z "$map" ] || sh -c "$map"
say "done; repeat this with --forget when $to_name is in its backups"
