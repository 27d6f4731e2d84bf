/** Whether the database has the tables of this version. */
import { ProviderError, toProviderError } from '../error.ts';
import type { Queryable } from './database.ts';

/** The number of the newest file in sql/. */
export const schemaVersion = 2;

/** Throws `not_set_up` unless the migration of this version, or of a later one, has run. */
export async function requireMigrated(database: Queryable): Promise<void> {
  if ((await migratedTo(database)) < schemaVersion) throw new ProviderError('not_set_up');
}

async function migratedTo(database: Queryable): Promise<number> {
  try {
    return (await database.query('SELECT max(version) AS version FROM or3.migration')).rows[0]
      .version;
  } catch (error) {
    throw toProviderError(error);
  }
}
