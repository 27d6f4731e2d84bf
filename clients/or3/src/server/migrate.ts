/** Makes the tables of this package, and grants what the app's login needs. */
import { readdir, readFile } from 'node:fs/promises';
import { transaction, type Database, type Queryable } from './database.ts';

const folder = new URL('../../sql/', import.meta.url);

/**
 * Brings a database to the state that this version needs; a second run changes nothing. The
 * login must be trusted by sync_ext and may create schemas; where the extension is not there
 * yet, only a superuser can create it. With `grantTo` that role gets what the app needs.
 */
export async function migrate(
  database: Database,
  options: { grantTo?: string } = {},
): Promise<void> {
  await transaction(database, (connection) => run(connection, options.grantTo ?? ''));
}

async function run(connection: Queryable, grantee: string): Promise<void> {
  // Of two that run at once the second waits, and finds nothing left.
  await connection.query("SELECT pg_advisory_xact_lock(hashtextextended('or3.migration', 0))");
  await connection.query('CREATE EXTENSION IF NOT EXISTS sync_ext');
  await connection.query('CREATE SCHEMA IF NOT EXISTS or3');
  await connection.query(
    `CREATE TABLE IF NOT EXISTS or3.migration (
       version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
  );
  for (const name of await numberedFiles()) await runOnce(connection, name);
  await connection.query("SELECT set_config('or3.grantee', $1, true)", [grantee]);
  await connection.query(await read('every_time.sql'));
}

async function runOnce(connection: Queryable, name: string): Promise<void> {
  const { rowCount } = await connection.query(
    'INSERT INTO or3.migration (version, name) VALUES ($1, $2) ON CONFLICT DO NOTHING',
    [Number.parseInt(name, 10), name],
  );
  if (rowCount === 1) await connection.query(await read(name));
}

async function numberedFiles(): Promise<string[]> {
  return (await readdir(folder)).filter((name) => /^\d+_.*\.sql$/.test(name)).sort();
}

async function read(name: string): Promise<string> {
  return await readFile(new URL(name, folder), 'utf8');
}
