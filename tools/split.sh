#!/usr/bin/env bash
# Splits a server of sync_ext: its streaming standby becomes a server of its own, for some buckets.
#
#   split.sh --old URL --standby URL --old-name NAME --new-name NAME --new-number N
#            --buckets 512-1023 [--placed FILE] [--map COMMAND] [--dry-run | --cancel | --forget]
#
#   --old, --standby        where psql connects as a superuser, to the database itself, not to a pooler
#   --old-name, --new-name  as the map calls the servers
#   --new-number            of sync_set_key_range, for the new server
#   --buckets               those that the new server gets
#   --placed                the map's exceptions as they are to be: lines of workspace_id,server as CSV
#   --map                   run when the new server serves, to change the map; safe to repeat
#   --max-lag, --timeout    how far the standby may be behind at first, in bytes (64 MB), and how long
#                           to wait for it, in seconds (60)
#   --dry-run               checks, says what would be done, and changes nothing
#   --cancel                takes everything back, until the standby is promoted
#   --forget                when the new server is in its backups: the old one erases what left
#
# A command that was broken off goes on when it is repeated. docs/scaling.md describes it.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

placed='' map='' max_lag=$((64 * 1024 * 1024)) timeout=60
options old standby old-name new-name new-number buckets -- placed map max-lag timeout -- \
  dry-run cancel forget -- "$@"
[ "$old_name" != "$new_name" ] || die "both servers are called $old_name"
[[ $new_number =~ ^[0-9]+$ ]] || usage
buckets=$(buckets_of "$buckets")
id=$(md5sum <<<"$old_name $new_name $new_number $buckets" | cut -c 1-32)
variables=(-v id="$id" -v buckets="$buckets" -v old_name="$old_name" -v new_name="$new_name"
  -v new_number="$new_number" -v max_lag="$max_lag")
old() { on "$old" "${variables[@]}" "$@"; }
new() { on "$standby" "${variables[@]}" "$@"; }

# A workspace w that has left, by the marks that both servers have.
left="exists (select from sync_ext.move as m
  where m.workspace_key = w.workspace_key and m.move_id = :'id' and m.role = 'departed')"

# What the new server is: a standby; a copy, which has what stays too; whole, with what it is to
# have alone; open; or another server.
state() {
  new <<SQL
select case
  when pg_is_in_recovery() then 'standby'
  when exists (select from sync_ext.workspace as w where $left) then 'copy'
  when not :'buckets'::bigint[] <@ array(select bucket from sync_ext.shard_bucket) then 'another'
  when (select reset_val from pg_settings where name = 'default_transaction_read_only') = 'on' then 'whole'
  else 'open'
end;
SQL
}

# Temporary tables of the old server: its buckets, the names that are exceptions of the map or
# are to be, those of them that go, and those that stay when their bucket goes.
names() {
  table_of placed 'workspace_id text collate "C" primary key, server text not null' lines_of "$placed"
  cat <<'SQL'
create temp table own as
select coalesce(array_agg(bucket), array(select generate_series(0, 1023))::bigint[]) as buckets
from sync_ext.shard_bucket;
create temp table named as
select workspace_id, p.server, m.workspace_id is not null as has_arrived,
  w.workspace_key is not null as is_there, w.workspace_key is not null and w.away is null as is_served,
  sync_ext.bucket_of(workspace_id) = any (:'buckets') as leaves,
  sync_ext.bucket_of(workspace_id) = any (own.buckets) as is_own
from (select workspace_id from sync_ext.move where role = 'arrived') as m
full join placed as p using (workspace_id)
left join sync_ext.workspace as w using (workspace_id)
cross join own;
create temp table going as
select workspace_id from named where server = :'new_name' or server is null and has_arrived and leaves;
create temp table staying as
select workspace_id from named where server = :'old_name' and leaves and not has_arrived;
SQL
}

check_old() {
  {
    names
    cat <<'SQL'
select case when exists (select from sync_ext.move where move_id = :'id' and role = 'departed')
    then not :'buckets'::bigint[] && buckets else :'buckets'::bigint[] <@ buckets end,
  'owns the buckets, or has begun to give them up' from own;
select not buckets <@ :'buckets'::bigint[], 'keeps others' from own;
select :new_number <> last_value >> 40, format('takes its keys from another range, %s', last_value >> 40)
from sync_ext.workspace_workspace_key_seq;
select not exists (select from sync_ext.move where move_id <> :'id'
    and (role in ('departing', 'arriving') or role = 'departed' and workspace_key is not null)),
  'has no move that is under way, or to be forgotten';
select not exists (select from pg_prepared_xacts where database = current_database()), 'has no prepared transactions';
select not exists (select from pg_subscription where subenabled), 'has no subscriptions, which the copy would go on with';
select false, format('workspace "%s" %s', workspace_id, case
  when server in (:'old_name', :'new_name') then 'does not exist, but is an exception of the map: take it out'
  when server is null then 'was moved here, but is no exception of the map'
  else format('is here, but the map places it at %s', server)
end)
from named
where server = :'new_name' and not is_there
  or server = :'old_name' and leaves and not has_arrived and not is_there
  or server is null and not leaves and not is_own
  or server not in (:'old_name', :'new_name') and (has_arrived or is_served)
order by workspace_id limit 20;
SQL
    cat <<SQL
select count(*) filter (where goes) > 0, format('has %s workspaces, of which %s go, %s of them by name', count(*),
  count(*) filter (where goes), count(*) filter (where goes and is_named))
from sync_ext.workspace as w
left join named as n using (workspace_id)
left join (select workspace_id, true as is_named from going) as g using (workspace_id),
lateral (select is_named or $left
  or n.workspace_id is null and sync_ext.bucket_of(workspace_id) = any (:'buckets')) as b (goes)
where w.away is null or $left;
SQL
  } | old
}

check_standby() {
  local facts archive="concat_ws(' ', nullif(current_setting('archive_command'), '(disabled)'), current_setting('archive_library'))"
  facts=$(old <<'SQL'
select format('-v system=%s -v timeline=%s -v major=%s -v lsn=%s', system_identifier,
  left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), current_setting('server_version_num')::int / 10000,
  pg_current_wal_insert_lsn()) from pg_control_system();
SQL
  )
  # shellcheck disable=SC2086 # These are words.
  new $facts -v archive="$(old <<<"select $archive;")" <<SQL
select system_identifier = :system, 'is a copy of the old server' from pg_control_system();
select count(*) filter (where status = 'streaming' and upper(lpad(to_hex(received_tli), 8, '0')) = :'timeline') = 1,
  'streams from it' from pg_stat_wal_receiver;
select lag <= :max_lag, format('is %s bytes behind, of at most %s', lag, :max_lag)
from greatest(pg_wal_lsn_diff(:'lsn', pg_last_wal_replay_lsn()), 0) as lag;
select pg_get_wal_replay_pause_state() = 'not paused' and current_setting('recovery_min_apply_delay') = '0',
  'replays at once';
select current_setting('server_version_num')::int / 10000 = :major and e.extversion = a.default_version,
  format('has version %s of the extension installed', e.extversion)
from pg_extension as e join pg_available_extensions as a on a.name = e.extname where e.extname = 'sync_ext';
select current_setting('archive_mode') = 'off' or $archive in ('', ' ') or $archive <> :'archive',
  'will not archive to where the old server does';
select current_setting('synchronous_standby_names') = '' or exists (select from pg_stat_replication),
  'will not wait for standbys that it does not have';
SQL
  old -v name="$(new <<'SQL'
select coalesce(substring(current_setting('primary_conninfo') from 'application_name=''?([^'' ]*)'),
  nullif(current_setting('cluster_name'), ''), 'walreceiver');
SQL
  )" <<'SQL'
select not exists (select from pg_stat_replication where application_name = :'name' and sync_state <> 'async'),
  'is none that commits wait for';
SQL
}

# Gives up the buckets together with the first batch, so that the marks tell who gave them up.
depart() {
  local reply=
  until [ "${reply#*|}" = false ]; do
    reply=$({
      echo begin';'
      names
      cat <<'SQL'
select sync_own_buckets(array(select unnest(buckets) except select unnest(:'buckets'::bigint[]))::int[])
from own where buckets && :'buckets'::bigint[] \g /dev/null
-- What stays becomes an exception here too.
select sync_split_depart(md5(:'id')::uuid, null, array(select workspace_id from staying), :'old_name',
  batch_size => 1000000) \g /dev/null
select sync_split_arrive(md5(:'id')::uuid, 1000000) \g /dev/null
select reply ->> 'after', reply ->> 'hasMore' from sync_split_depart(:'id', :'buckets',
  array(select workspace_id from going), :'new_name', after => :'after', batch_size => 5000) as reply;
commit;
SQL
    } | old -v after="${reply%|*}")
  done
}

has_replayed() { # LSN MARKS
  new -v lsn="$1" -v marks="$2" <<SQL
select pg_last_wal_replay_lsn() >= :'lsn' and (select count(*) from sync_ext.workspace as w where $left) = :marks;
SQL
}

wait_for_standby() {
  local lsn marks
  lsn=$(old <<<'select pg_current_wal_insert_lsn();')
  marks=$(old <<<"select count(*) from sync_ext.workspace as w where $left;")
  [ "$marks" -gt 0 ] || die "nothing leaves"
  wait_until "$timeout" has_replayed "$lsn" "$marks" ||
    die "the standby has not replayed what left, which nobody serves now: repeat this, or --cancel"
}

is_read_only() { # on | off
  new -v value="$1" <<<"select reset_val = :'value' from pg_settings where name = 'default_transaction_read_only';"
}

# A copy serves what stays too. Those who are sent to it, by a failover for example, must not write
# there, so it is read only until that is gone.
close_standby() {
  new <<'SQL'
alter system set default_transaction_read_only = on;
select pg_reload_conf() \g /dev/null
SQL
  wait_until 60 is_read_only on || die "default_transaction_read_only has another source than ALTER SYSTEM there"
}

open_new() {
  new <<'SQL'
alter system reset default_transaction_read_only;
select pg_reload_conf() \g /dev/null
SQL
  wait_until 60 is_read_only off || die "default_transaction_read_only has another source than ALTER SYSTEM there"
}

is_promoted() { new <<<'select not pg_is_in_recovery();'; }

# Nobody waits there: what is left to be replayed could have to wait for the one who does.
promote() {
  new <<<'select pg_promote(false) \g /dev/null'
  wait_until 60 is_promoted || die "the standby was not promoted within a minute: repeat this"
}

# What follows removes most of a server: it must be the copy.
require_copy() {
  local timeline
  timeline=$(old <<<'select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);')
  [ "$(new -v timeline="$timeline" <<'SQL'
select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) > :'timeline'
  and (select reset_val from pg_settings where name = 'default_transaction_read_only') = 'on';
SQL
  )" = t ] || die "$new_name was promoted without being read only: it may have taken what is $old_name's"
}

# Names of other moves are the old server's, or where they departed to.
remove_what_stays() {
  new <<'SQL'
select sync_set_key_range(:new_number) \g /dev/null
select sync_disown(array_agg(workspace_id), server)
from (
  select workspace_id, case role when 'departed' then peer else :'old_name' end as server
  from sync_ext.move where move_id <> :'id' and (role <> 'departed' or workspace_key is not null)
) as m
group by server \g /dev/null
select sync_own_buckets(:'buckets') \g /dev/null
SQL
  repeat remove_some
}

remove_some() { new <<<"select sync_disown(batch_size => 10000) ->> 'hasMore';"; }

arrive_some() { # old | new
  "$1" <<<"select sync_split_arrive(:'id', 10000) ->> 'hasMore';"
}

# How many workspaces there are, and a digest of their names, keys and counters.
digest() { # WHICH
  cat <<SQL
select concat_ws(' ', count(*), sum(w.head), sum(('x' || left(md5(concat_ws('|', w.workspace_id, w.workspace_key,
  w.head, w.horizon, w.gc_through, w.created_at)), 16))::bit(64)::bigint::numeric))
from sync_ext.workspace as w where $1;
SQL
}

# All that left arrived, as it was, and nothing else.
verify() {
  local gone here
  gone=$(digest "$left" | old)
  here=$(digest true | new)
  [ "$gone" = "$here" ] || die "$new_name is not opened: it has $here, but $gone left (workspaces, sum of heads, digest)"
  [ "$(new <<<'select count(*) from sync_ext.workspace where away is not null;')" = 0 ] ||
    die "$new_name is not opened: not all of its workspaces have arrived"
  say "$new_name has what left, as it was: ${gone% *} (workspaces, sum of heads)"
}

# The standby's slot would keep WAL for it.
drop_slot() {
  old -v slot="$(new <<<"select current_setting('primary_slot_name');")" <<'SQL'
select pg_drop_replication_slot(slot_name) from pg_replication_slots
where slot_name = :'slot' and slot_type = 'physical' and not active \g /dev/null
SQL
}

# Names that were moved to the old server and stay there, whatever their buckets.
say_map() {
  say "the map: $new_name has the buckets $buckets"
  { names; cat <<'SQL'
select format('the map: workspace "%s" stays at %s', workspace_id, :'old_name')
from named where has_arrived and leaves order by workspace_id limit 20;
SQL
  } | old >&2
}

cancel() {
  [ "$(state)" = standby ] || die "the standby is promoted: there is only the way forward"
  {
    names
    cat <<'SQL'
select sync_own_buckets(array(select unnest(buckets) union select unnest(:'buckets'::bigint[]))::int[])
from own where exists (select from sync_ext.move where move_id = :'id' and role = 'departed') \g /dev/null
SQL
  } | old
  repeat arrive_some old
  open_new
  say "$old_name serves everything again"
}

forget_some() {
  old <<'SQL'
select count(sync_export_forget(workspace_id, move_id)) = 1000
from (
  select workspace_id, move_id from sync_ext.move
  where move_id = :'id' and role = 'departed' and workspace_key is not null limit 1000
) as m;
SQL
}

forget() {
  [ "$(state)" = open ] || die "$new_name does not serve yet"
  repeat forget_some
  old <<<'select sync_disown() \g /dev/null'
  say "$old_name has forgotten what left; sync_gc erases its rows"
}

case $mode in
  cancel | forget)
    $mode
    exit
    ;;
esac

[ "$(old <<<'select pg_is_in_recovery();')" = f ] || die "the old server is a standby"
at=$(state)
say "$new_name is: $at"
[ "$at" != another ] || die "that is neither a standby nor a server with these buckets"
if [ "$at" = standby ]; then
  checks=$(check_old)
  report "the old server, $old_name:" "$checks"
  checks=$(check_standby)
  report "its standby, $new_name:" "$checks"
fi
if [ "$mode" = dry-run ]; then
  say "then: $old_name gives up the buckets and stops serving what leaves; the standby replays that, is
promoted and made read only; it removes what stays, serves what left, is compared and opened"
  end_of_checks
  exit
fi
end_of_checks
if [ "$at" = standby ]; then
  stop "stopping the service of what leaves"
  depart
  wait_for_standby
  say "promoting"
  close_standby
  promote
  at=copy
fi
if [ "$at" = copy ]; then
  require_copy
  say "removing what stays"
  remove_what_stays
  say "starting the service of what left"
  repeat arrive_some new
  at=whole
fi
if [ "$at" = whole ]; then
  verify
  open_new
  serves
  drop_slot
fi
say_map
[ -z "$map" ] || sh -c "$map"
say "done; repeat this with --forget when $new_name is in its backups"
