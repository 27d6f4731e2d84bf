/** Changes of members, for the app, which has checked who may make them. */
import type { WorkspaceRole } from '../host.ts';
import { ProviderError } from '../error.ts';
import type { Queryable } from './database.ts';
import { normalizedEmail } from './users.ts';
import { lockLive } from './workspaces.ts';

export interface Member {
  userId: string;
  email?: string;
  role: WorkspaceRole;
}

export async function list(connection: Queryable, workspaceId: string): Promise<Member[]> {
  const { rows } = await connection.query(
    `SELECT m."userId" AS user_id, m.role, u.email
       FROM json_to_recordset(sync_list_members($1) -> 'members') AS m ("userId" text, role text)
       LEFT JOIN or3.app_user AS u ON u.user_id = m."userId" COLLATE "C"
      WHERE EXISTS (SELECT FROM or3.workspace AS w WHERE w.workspace_id = $1 AND w.deleted_at IS NULL)
      ORDER BY u.created_at, user_id`,
    [workspaceId],
  );
  return rows.map(({ user_id, role, email }) => {
    const member: Member = { userId: user_id, role };
    if (email !== null) member.email = email;
    return member;
  });
}

/** Only a user who has been here; others are invited. */
export async function put(
  connection: Queryable,
  input: { workspaceId: string; emailOrProviderId: string; role: WorkspaceRole; provider?: string },
): Promise<void> {
  await lockLive(connection, input.workspaceId);
  const userId = await userBy(connection, input.emailOrProviderId.trim(), input.provider);
  await set(connection, input.workspaceId, userId, input.role);
}

export async function setRole(
  connection: Queryable,
  input: { workspaceId: string; userId: string; role: WorkspaceRole },
): Promise<void> {
  const { workspaceId, userId, role } = input;
  await lockLive(connection, workspaceId);
  if ((await roleOf(connection, workspaceId, userId)) === null) {
    throw new ProviderError('unknown_member');
  }
  await set(connection, workspaceId, userId, role);
}

export async function remove(
  connection: Queryable,
  input: { workspaceId: string; userId: string },
): Promise<void> {
  const { workspaceId, userId } = input;
  await lockLive(connection, workspaceId);
  if ((await roleOf(connection, workspaceId, userId)) === null) {
    throw new ProviderError('unknown_member');
  }
  await connection.query('SELECT sync_remove_member($1, $2)', [workspaceId, userId]);
  await connection.query('DELETE FROM or3.device WHERE workspace_id = $1 AND user_id = $2', [
    workspaceId,
    userId,
  ]);
  await connection.query(
    `UPDATE or3.app_user SET active_workspace_id = NULL
      WHERE user_id = $2 AND active_workspace_id = $1`,
    [workspaceId, userId],
  );
}

export async function roleOf(
  connection: Queryable,
  workspaceId: string,
  userId: string,
): Promise<WorkspaceRole | null> {
  const call = 'SELECT sync_get_role($1, $2) AS role';
  return (await connection.query(call, [workspaceId, userId])).rows[0].role;
}

export async function set(
  connection: Queryable,
  workspaceId: string,
  userId: string,
  role: WorkspaceRole,
): Promise<void> {
  await connection.query('SELECT sync_set_member($1, $2, $3)', [workspaceId, userId, role]);
}

/** The user of an e-mail address, of a provider's id or of an id of ours, if it is only one. */
async function userBy(
  connection: Queryable,
  given: string,
  provider: string | undefined,
): Promise<string> {
  const { rows } = given.includes('@')
    ? await connection.query('SELECT user_id FROM or3.app_user WHERE email = $1 LIMIT 2', [
        normalizedEmail(given),
      ])
    : await connection.query(
        `SELECT user_id FROM or3.account
          WHERE provider_user_id = $1 AND ($2::text IS NULL OR provider = $2)
          UNION SELECT user_id FROM or3.app_user WHERE user_id = $1 LIMIT 2`,
        [given, provider ?? null],
      );
  if (rows.length !== 1) throw new ProviderError('unknown_user');
  return rows[0].user_id;
}
