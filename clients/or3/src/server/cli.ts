#!/usr/bin/env node
/** `or3-provider-sync-ext migrate URL [--grant-to ROLE]` */
import { parseArgs } from 'node:util';
import pg from 'pg';
import { migrate } from './migrate.ts';

const usage = 'usage: or3-provider-sync-ext migrate [URL] [--grant-to ROLE]';

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { 'grant-to': { type: 'string' } },
  });
  const [command, url = process.env.OR3_SYNC_EXT_DATABASE_URL] = positionals;
  if (command !== 'migrate' || url === undefined || positionals.length > 2) throw new Error(usage);
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  try {
    const grantTo = values['grant-to'];
    await migrate(pool, grantTo === undefined ? {} : { grantTo });
    console.log('The database is set up.');
  } finally {
    await pool.end();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
