/**
 * Pulls from a cursor below the horizon, of which sync_ext only says that they need a
 * snapshot, because deletes that they have not seen are purged. Older clients do not know
 * that answer: a new device would stay empty. They get here what a snapshot has and also
 * the purged deletes, in order of version, a page at a time: of each record that has changed
 * since the cursor its current state.
 */
import type { PullResponse, SyncChange } from '../host.ts';
import { transactionFor, type Database } from './database.ts';

export interface PastPull {
  user: string;
  workspaceId: string;
  cursor: number;
  limit: number | null;
  tables: string[] | null;
  /** Of the pull before: every version up to it is visible to a later statement. */
  head: number;
}

interface Row {
  server_version: number;
  table_name: string;
  pk: string;
  deleted: boolean;
  payload: unknown;
  revision: { clock: number; hlc: string; opId: string };
}

/** The view has no bound on the bytes of a page, as sync_pull has. */
const largestPage = 200;

/** The view does not say which device made an entry; the app only shows it. */
const deviceId = '$server';

export async function pullPastHorizon(database: Database, pull: PastPull): Promise<PullResponse> {
  const limit = Math.min(pull.limit ?? 100, largestPage);
  const rows = await read(database, pull, limit + 1);
  const hasMore = rows.length > limit;
  const changes = rows.slice(0, limit).map(toChange);
  const last = changes.at(-1)?.serverVersion ?? 0;
  return {
    changes,
    nextCursor: hasMore ? last : Math.max(last, pull.head),
    hasMore,
    // What this reply leaves out, by its own rules: nothing after the cursor.
    oldestRetainedVersion: pull.cursor + 1,
    requiresSnapshot: false,
  };
}

async function read(database: Database, pull: PastPull, limit: number): Promise<Row[]> {
  const { user, workspaceId, cursor, tables } = pull;
  // The view is evaluated for the user of its statement, so that is set before.
  return await transactionFor(database, user, async (connection) => {
    const { rows } = await connection.query(
      `SELECT r.server_version::double precision AS server_version, r.table_name, r.pk,
              r.deleted, r.payload, r.revision
         FROM sync_ext.current_record AS r
        WHERE r.workspace_id = $1 AND r.server_version > $2
          AND ($3::text[] IS NULL OR r.table_name = ANY ($3))
        ORDER BY r.server_version LIMIT $4`,
      [workspaceId, cursor, tables, limit],
    );
    return rows;
  });
}

function toChange({ server_version, table_name, pk, deleted, payload, revision }: Row): SyncChange {
  const change = {
    serverVersion: server_version,
    tableName: table_name,
    pk,
    stamp: { ...revision, deviceId },
  };
  return deleted ? { ...change, op: 'delete' } : { ...change, op: 'put', payload };
}
