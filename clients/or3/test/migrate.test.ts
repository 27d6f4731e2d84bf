import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, expect, inject, test } from 'vitest';
import { Cluster } from '../../support/cluster.ts';
import { migrate } from '../src/server/migrate.ts';
import { requireMigrated, schemaVersion } from '../src/server/schema.ts';
import { SyncExtAuthWorkspaceStore } from '../src/server/store.ts';
import { failureOf } from './support/world.ts';

const cluster = Cluster.at(inject('cluster'));
const pools: pg.Pool[] = [];

async function poolOf(sql = '', user = 'postgres'): Promise<{ database: string; pool: pg.Pool }> {
  const database = await cluster.createDatabase(sql);
  const pool = new pg.Pool(cluster.connection(database, user));
  pools.push(pool);
  return { database, pool };
}

/** Everything in schema or3, and what is registered and granted. */
async function stateOf(pool: pg.Pool): Promise<unknown[]> {
  const { rows } = await pool.query(
    `select relname::text as name, relacl::text as acl from pg_class where relnamespace = 'or3'::regnamespace
      union all select table_name, pk_field || coalesce(owner_field, '') from sync_ext.synced_table
      union all select proname::text, proacl::text from pg_proc where proname like 'sync\\_%'
      order by 1, 2`,
  );
  return rows;
}

afterAll(async () => {
  await Promise.all(pools.map((pool) => pool.end()));
});

test('a second migration changes nothing', async () => {
  const { pool } = await poolOf();
  expect(await failureOf(requireMigrated(pool))).toEqual({ code: 'not_set_up', status: 500 });
  await migrate(pool, { grantTo: 'or3_app' });
  await requireMigrated(pool);
  const state = await stateOf(pool);
  expect(state.length).toBeGreaterThan(20);
  await migrate(pool, { grantTo: 'or3_app' });
  expect(await stateOf(pool)).toEqual(state);
});

test('it creates the extension where it is not there', async () => {
  const { pool } = await poolOf('drop extension sync_ext');
  await migrate(pool);
  await pool.query('select sync_list_workspaces()');
});

test('migrations at once run once', async () => {
  const { pool } = await poolOf();
  await Promise.all([migrate(pool), migrate(pool), migrate(pool)]);
  const { rows } = await pool.query('select version from or3.migration order by version');
  expect(rows).toEqual([{ version: 1 }, { version: 2 }]);
});

test('data survives it', async () => {
  const { pool } = await poolOf();
  await migrate(pool);
  const store = new SyncExtAuthWorkspaceStore({ database: pool });
  const identity = { provider: 'p', providerUserId: 'u' };
  const user = await store.getOrCreateUser(identity);
  await migrate(pool);
  expect(await store.getUser(identity)).toEqual(user);
});

test('one that fails leaves nothing', async () => {
  const { pool } = await poolOf();
  await expect(migrate(pool, { grantTo: 'no such role' })).rejects.toThrow('does not exist');
  const { rows } = await pool.query("select to_regnamespace('or3') as schema");
  expect(rows).toEqual([{ schema: null }]);
});

test('a role is named, whatever its name is', async () => {
  const role = `odd "role'; drop schema or3 --`;
  await cluster.sql('postgres', `create role "${role.replaceAll('"', '""')}"`);
  const { pool } = await poolOf();
  await migrate(pool, { grantTo: role });
  const { rows } = await pool.query("select has_schema_privilege($1, 'or3', 'usage') as granted", [
    role,
  ]);
  expect(rows).toEqual([{ granted: true }]);
});

test('roles get only what the app needs', async () => {
  const { database, pool } = await poolOf();
  await migrate(pool, { grantTo: 'or3_app' });
  const app = new pg.Pool(cluster.connection(database, 'or3_app'));
  pools.push(app);
  await requireMigrated(app);
  for (const statement of [
    "select sync_register_table('x')",
    'select * from sync_ext.change_log',
    'create table or3.x ()',
    'delete from or3.migration',
    "select sync_drop_workspace('x')",
  ]) {
    await expect(app.query(statement)).rejects.toThrow(/permission denied/);
  }
});

test('without its grants the app is told what is missing', async () => {
  const { database, pool } = await poolOf();
  await migrate(pool);
  const app = new pg.Pool(cluster.connection(database, 'or3_app'));
  pools.push(app);
  const notSetUp = { code: 'not_set_up', status: 500 };
  expect(await failureOf(requireMigrated(app))).toEqual(notSetUp);
  const store = new SyncExtAuthWorkspaceStore({ database: app });
  expect(await failureOf(store.getWorkspaceRole({ userId: 'u', workspaceId: 'w' }))).toEqual(
    notSetUp,
  );
});

test('an older state is not enough', async () => {
  const { pool } = await poolOf();
  await migrate(pool);
  await pool.query('delete from or3.migration where version = $1', [schemaVersion]);
  expect(await failureOf(requireMigrated(pool))).toEqual({ code: 'not_set_up', status: 500 });
  await pool.query("insert into or3.migration values ($1, 'later')", [schemaVersion + 1]);
  await requireMigrated(pool);
});

test('the version is that of the newest file', async () => {
  const files = (await readdir(new URL('../sql', import.meta.url)))
    .filter((name) => /^\d/.test(name))
    .sort();
  expect(files.map((name) => Number.parseInt(name, 10))).toEqual(files.map((_, i) => i + 1));
  expect(files).toHaveLength(schemaVersion);
});

test('the command migrates', async () => {
  const { database, pool } = await poolOf();
  const cli = fileURLToPath(new URL('../dist/server/cli.js', import.meta.url));
  const { host, port, user } = cluster.connection(database);
  const url = `postgres://${user}@localhost:${port}/${database}?host=${encodeURIComponent(host)}`;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, [cli, 'migrate', url, '--grant-to', 'or3_app']);
  expect(stdout).toBe('The database is set up.\n');
  await requireMigrated(pool);
  await expect(run(process.execPath, [cli, 'drop', url])).rejects.toThrow(/usage/);
  await expect(
    run(process.execPath, [cli, 'migrate', url, '--grant-to', 'absent']),
  ).rejects.toThrow(/role "absent" does not exist/);
});
