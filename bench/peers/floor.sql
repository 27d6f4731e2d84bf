-- The floor: what Postgres itself needs to write the rows. The same tables,
-- constraints and indexes; the benchmark fills them with plain INSERTs.
create schema floor;
create table floor.workspace (like sync_ext.workspace including all);
create table floor.change_log (like sync_ext.change_log including all);
create table floor.record (like sync_ext.record including all);
insert into floor.workspace (workspace_key, workspace_id) overriding system value
  select n, 'w' || n from generate_series(0, 1000) n;
