/** Roles, as sync_ext has them. */
import type { WorkspaceRole } from '../host.ts';
import { ProviderError } from '../error.ts';
import type { Queryable } from './database.ts';

const ranks: Record<WorkspaceRole, number> = { viewer: 1, editor: 2, owner: 3 };

export const roles = Object.keys(ranks) as WorkspaceRole[];

/** Whether a role includes another one. */
export function includes(role: WorkspaceRole | null, least: WorkspaceRole): boolean {
  return role !== null && ranks[role] >= ranks[least];
}

/** The role of the transaction's user. */
export async function roleIn(
  connection: Queryable,
  workspaceId: string,
): Promise<WorkspaceRole | null> {
  const { rows } = await connection.query('SELECT sync_get_role($1) AS role', [workspaceId]);
  return rows[0].role;
}

/** That the transaction's user has at least this role. */
export async function requireRole(
  connection: Queryable,
  workspaceId: string,
  least: WorkspaceRole,
): Promise<void> {
  if (!includes(await roleIn(connection, workspaceId), least))
    throw new ProviderError('not_a_member');
}
