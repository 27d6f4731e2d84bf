/** Workspaces: their names, and their soft deletion. */
import type { WorkspaceEntry } from '../host.ts';
import { ProviderError } from '../error.ts';
import { invalid } from './arguments.ts';
import type { Queryable } from './database.ts';
import { requireRole } from './roles.ts';
import * as users from './users.ts';

const defaultName = 'My Workspace';

/**
 * The owner of a removed workspace, since sync_ext demands one. Nobody can be this user: no
 * id that the store makes is like it.
 */
const placeholder = '$removed';

export async function list(connection: Queryable, userId: string): Promise<WorkspaceEntry[]> {
  const { rows } = await connection.query(
    `SELECT w.workspace_id, w.name, w.description, m.role,
            extract(epoch FROM w.created_at)::double precision AS created_at,
            w.workspace_id IS NOT DISTINCT FROM
              (SELECT active_workspace_id FROM or3.app_user WHERE user_id = $1) AS is_active
       FROM json_to_recordset(sync_list_workspaces() -> 'workspaces')
              AS m ("workspaceId" text, role text)
       JOIN or3.workspace AS w ON w.workspace_id = m."workspaceId" COLLATE "C"
      WHERE w.deleted_at IS NULL
      ORDER BY w.created_at, w.workspace_id`,
    [userId],
  );
  return rows.map((row) => ({
    id: row.workspace_id,
    name: row.name,
    description: row.description,
    role: row.role,
    createdAt: Math.floor(row.created_at),
    isActive: row.is_active,
  }));
}

/** The active one, if the user is still a member, otherwise the oldest, or a new one. */
export async function findOrCreateDefault(
  connection: Queryable,
  userId: string,
): Promise<{ workspaceId: string; workspaceName: string; created: boolean }> {
  // Two first requests at once must not make a workspace each.
  const { activeWorkspaceId } = await users.lock(connection, userId);
  const all = await list(connection, userId);
  const found = all.find(({ id }) => id === activeWorkspaceId) ?? all[0];
  if (found) {
    if (found.id !== activeWorkspaceId) await users.setActive(connection, userId, found.id);
    return { workspaceId: found.id, workspaceName: found.name, created: false };
  }
  const { workspaceId } = await create(connection, { userId, name: defaultName });
  await users.setActive(connection, userId, workspaceId);
  return { workspaceId, workspaceName: defaultName, created: true };
}

export async function create(
  connection: Queryable,
  input: { userId: string; name: string; description?: string | null },
): Promise<{ workspaceId: string }> {
  await users.lock(connection, input.userId);
  const { rows } = await connection.query(
    'INSERT INTO or3.workspace (name, description, created_by) VALUES ($1, $2, $3) RETURNING workspace_id',
    [nameOf(input.name), input.description ?? null, input.userId],
  );
  const workspaceId: string = rows[0].workspace_id;
  await connection.query('SELECT sync_create_workspace($1, $2)', [workspaceId, input.userId]);
  return { workspaceId };
}

export async function update(
  connection: Queryable,
  input: { workspaceId: string; name: string; description?: string | null },
): Promise<void> {
  await requireRole(connection, input.workspaceId, 'editor');
  const { rowCount } = await connection.query(
    `UPDATE or3.workspace SET name = $2, description = $3
      WHERE workspace_id = $1 AND deleted_at IS NULL`,
    [input.workspaceId, nameOf(input.name), input.description ?? null],
  );
  if (rowCount === 0) throw new ProviderError('unknown_workspace');
}

/**
 * Nobody is a member of it any more, so that sync_ext refuses every call, also those that
 * do not come through this package. Records and history stay.
 */
export async function removeSoftly(connection: Queryable, workspaceId: string): Promise<void> {
  await requireRole(connection, workspaceId, 'owner');
  await lockLive(connection, workspaceId);
  await connection.query('UPDATE or3.workspace SET deleted_at = now() WHERE workspace_id = $1', [
    workspaceId,
  ]);
  await connection.query(
    `INSERT INTO or3.former_member (workspace_id, user_id, role)
     SELECT $1, m."userId", m.role
       FROM json_to_recordset(sync_list_members($1) -> 'members') AS m ("userId" text, role text)`,
    [workspaceId],
  );
  await connection.query("SELECT sync_set_member($1, $2, 'owner')", [workspaceId, placeholder]);
  // Last the caller, whose right it is.
  await connection.query(
    `SELECT sync_remove_member($1, user_id)
       FROM (SELECT user_id FROM or3.former_member WHERE workspace_id = $1
              ORDER BY user_id = current_setting('sync_ext.user_id')) AS m`,
    [workspaceId],
  );
  await connection.query('DELETE FROM or3.device WHERE workspace_id = $1', [workspaceId]);
  await connection.query(
    'UPDATE or3.app_user SET active_workspace_id = NULL WHERE active_workspace_id = $1',
    [workspaceId],
  );
}

export async function restore(connection: Queryable, workspaceId: string): Promise<void> {
  const workspace = await lock(connection, workspaceId);
  if (workspace === null) throw new ProviderError('unknown_workspace');
  if (!workspace.isDeleted) return;
  await connection.query(
    'SELECT sync_set_member(workspace_id, user_id, role) FROM or3.former_member WHERE workspace_id = $1',
    [workspaceId],
  );
  await connection.query('SELECT sync_remove_member($1, $2)', [workspaceId, placeholder]);
  await connection.query('DELETE FROM or3.former_member WHERE workspace_id = $1', [workspaceId]);
  await connection.query('UPDATE or3.workspace SET deleted_at = NULL WHERE workspace_id = $1', [
    workspaceId,
  ]);
}

export async function activate(
  connection: Queryable,
  userId: string,
  workspaceId: string,
): Promise<void> {
  await requireRole(connection, workspaceId, 'viewer');
  await users.lock(connection, userId);
  await users.setActive(connection, userId, workspaceId);
}

/**
 * The workspace's row, NULL if there is none. Changes of members and soft deletion wait for
 * each other here.
 */
export async function lock(
  connection: Queryable,
  workspaceId: string,
): Promise<{ isDeleted: boolean } | null> {
  const { rows } = await connection.query(
    'SELECT deleted_at IS NOT NULL AS is_deleted FROM or3.workspace WHERE workspace_id = $1 FOR UPDATE',
    [workspaceId],
  );
  return rows.length === 0 ? null : { isDeleted: rows[0].is_deleted };
}

/** One that is there, and not removed. */
export async function lockLive(connection: Queryable, workspaceId: string): Promise<void> {
  const workspace = await lock(connection, workspaceId);
  if (workspace === null || workspace.isDeleted) throw new ProviderError('unknown_workspace');
}

function nameOf(name: string): string {
  const trimmed = name.trim();
  if (trimmed === '') invalid('The name must not be empty.');
  return trimmed;
}
