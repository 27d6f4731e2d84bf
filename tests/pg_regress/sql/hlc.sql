-- Hybrid logical clocks of the server, and clocks that are ahead of it.
\pset format unaligned
\pset tuples_only on
create extension sync_ext;
select sync_register_table('notes');
select sync_hlc_now() ~ '^[0-9]{13}:0[0-9]{3}:\$server$';
-- They ascend by bytes, and say the time.
select bool_and(hlc > before) from (
  select hlc, lag(hlc, 1, '') over (order by n) as before
  from (select n, sync_hlc_now() as hlc, pg_sleep(0.000002) from generate_series(1, 100) as n) as s
) as pairs;
-- Within a millisecond they count microseconds.
select count(distinct (sync_hlc_parse(hlc)).counter) > 10
from (select sync_hlc_now() as hlc from generate_series(1, 100)) as s;
select abs(extract(epoch from now() - at)) < 60, node from sync_hlc_parse(sync_hlc_now());
set time zone 'UTC';
select * from sync_hlc_parse('1576697371123:0042:dev:1');
select * from sync_hlc_parse('2019-12-18T19:29:31Z');
select * from sync_hlc_parse(null);

create function push(hlc text, n integer) returns text language sql as $$
  select concat_ws(' ', r ->> 'serverVersion', r ->> 'errorCode', regexp_replace(r ->> 'error', '[0-9]+', 'N'))
  from json_array_elements(sync_push('w', format('[{"tableName": "notes", "operation": "put", "pk": "a",
    "payload": {}, "stamp": {"deviceId": "d", "opId": "%s", "hlc": "%s", "clock": 1}}]',
    lpad(n::text, 8, '0') || '-0000-4000-8000-000000000000', hlc)::json) -> 'results') as r
$$;
-- By default a clock may say what it wants.
select push('9999999999999:0000:d', 1);
set sync_ext.max_clock_drift = '1min';
select push('9999999999999:0000:d', 2);
-- What was stored stays a replay.
select push('9999999999999:0000:d', 1);
select push(sync_hlc_now(), 3);
-- An hlc of another form says nothing of its time.
select push('h', 4), push('2999-01-01T00:00:00Z', 5);
\set VERBOSITY sqlstate
set sync_ext.max_clock_drift = -1;
