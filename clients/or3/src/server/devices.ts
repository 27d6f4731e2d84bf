/** Acknowledgements, with what the app demands of them beyond sync_ext. */
import type { CursorReply } from '../wire.ts';
import { ProviderError } from '../error.ts';
import { transactionFor, type Database, type Queryable } from './database.ts';

/**
 * To sync_ext the same device id under another user is another device, and a lower version
 * than before is only a sign of life. The app demands that both are refused.
 */
export async function acknowledge(
  database: Database,
  user: string,
  workspaceId: string,
  deviceId: string,
  version: number,
): Promise<void> {
  await transactionFor(database, user, async (connection) => {
    const { lastSeenVersion } = await updateCursor(connection, workspaceId, deviceId, version);
    if ((await claim(connection, user, workspaceId, deviceId)) !== user) {
      throw new ProviderError('device_of_another_user');
    }
    if (lastSeenVersion > version) throw new ProviderError('cursor_regressed');
  });
}

/**
 * The app acknowledges only when changes came, so that a device which reads but is idle
 * would count as gone some day. A pull must not fail because of it: a standby, or another
 * user's device id, only leaves it out.
 */
export async function acknowledgeIdle(
  database: Database,
  user: string,
  workspaceId: string,
  deviceId: string,
  version: number,
): Promise<void> {
  try {
    await acknowledge(database, user, workspaceId, deviceId, version);
  } catch (error) {
    const left = ['read_only', 'device_of_another_user', 'cursor_regressed', 'invalid_request'];
    if (!(error instanceof ProviderError && left.includes(error.code))) throw error;
  }
}

async function updateCursor(
  connection: Queryable,
  workspaceId: string,
  deviceId: string,
  version: number,
): Promise<CursorReply> {
  const call = 'SELECT sync_update_cursor($1, $2, $3) AS reply';
  return (await connection.query(call, [workspaceId, deviceId, version])).rows[0].reply;
}

/** The user whose device it is: the first to ask, after sync_ext has let them. */
async function claim(
  connection: Queryable,
  user: string,
  workspaceId: string,
  deviceId: string,
): Promise<string> {
  const { rows } = await connection.query(
    `INSERT INTO or3.device AS known (workspace_id, device_id, user_id) VALUES ($1, $2, $3)
     ON CONFLICT (workspace_id, device_id) DO UPDATE SET user_id = known.user_id
     RETURNING user_id`,
    [workspaceId, deviceId, user],
  );
  return rows[0].user_id;
}
