/** Invites: an e-mail address, a role, and the hash of a token that only the guest has. */
import type {
  Invite,
  InviteRefusal,
  InviteStatus,
  InviteToken,
  InviteValidationResult,
  WorkspaceRole,
} from '../host.ts';
import { ProviderError } from '../error.ts';
import { invalid } from './arguments.ts';
import type { Queryable } from './database.ts';
import { roleOf, set } from './members.ts';
import { includes, roles } from './roles.ts';
import { normalizedEmail, setActive } from './users.ts';
import { lock, lockLive } from './workspaces.ts';

export interface NewInvite {
  workspaceId: string;
  email: string;
  role: WorkspaceRole;
  invitedByUserId: string;
  /** In seconds since 1970. */
  expiresAt: number;
  tokenHash: string;
}

const status = `
  CASE WHEN i.accepted_at IS NOT NULL THEN 'accepted'
       WHEN i.revoked_at IS NOT NULL THEN 'revoked'
       WHEN i.expires_at <= now() THEN 'expired'
       ELSE 'pending' END`;

export async function create(
  connection: Queryable,
  input: NewInvite,
): Promise<{ inviteId: string }> {
  if (!roles.includes(input.role)) invalid('A role is owner, editor or viewer.');
  await lockLive(connection, input.workspaceId);
  const { rows } = await connection.query(
    `INSERT INTO or3.invite (workspace_id, email, role, token_hash, invited_by, expires_at)
     VALUES ($1, $2, $3, $4, $5, to_timestamp($6)) RETURNING invite_id`,
    [
      input.workspaceId,
      normalizedEmail(input.email),
      input.role,
      input.tokenHash,
      input.invitedByUserId,
      input.expiresAt,
    ],
  );
  return { inviteId: rows[0].invite_id };
}

export async function list(
  connection: Queryable,
  input: { workspaceId: string; status?: InviteStatus; limit?: number },
): Promise<Invite[]> {
  const limit = Math.max(1, Math.min(Math.trunc(input.limit ?? 100) || 100, 500));
  const seconds = (column: string) => `floor(extract(epoch FROM i.${column}))::double precision`;
  const { rows } = await connection.query(
    `SELECT * FROM (
       SELECT i.invite_id AS "id", i.workspace_id AS "workspaceId", i.email, i.role,
              ${status} AS status, i.invited_by AS "invitedByUserId", i.token_hash AS "tokenHash",
              ${seconds('expires_at')} AS "expiresAt", ${seconds('accepted_at')} AS "acceptedAt",
              i.accepted_by AS "acceptedUserId", ${seconds('revoked_at')} AS "revokedAt",
              ${seconds('created_at')} AS "createdAt", ${seconds('updated_at')} AS "updatedAt"
         FROM or3.invite AS i WHERE i.workspace_id = $1
        ORDER BY i.created_at DESC, i.invite_id) AS all_of_them
      WHERE $2::text IS NULL OR status = $2 LIMIT $3`,
    [input.workspaceId, input.status ?? null, limit],
  );
  return rows as Invite[];
}

/** One that is not pending stays as it is. */
export async function revoke(
  connection: Queryable,
  input: { workspaceId: string; inviteId: string },
): Promise<void> {
  const { rowCount } = await connection.query(
    `UPDATE or3.invite AS i
        SET revoked_at = CASE WHEN ${status} = 'pending' THEN now() ELSE revoked_at END,
            updated_at = now()
      WHERE i.workspace_id = $1 AND i.invite_id = $2`,
    [input.workspaceId, input.inviteId],
  );
  if (rowCount === 0) throw new ProviderError('unknown_invite');
}

export async function validate(
  connection: Queryable,
  token: InviteToken,
): Promise<InviteValidationResult> {
  const invite = await find(connection, token);
  return 'reason' in invite
    ? { ok: false, reason: invite.reason }
    : { ok: true, role: invite.role };
}

/** Makes a user a member by an invite, which then is used. `guest` is asked only if it holds. */
export async function consume(
  connection: Queryable,
  token: InviteToken,
  guest: () => Promise<string>,
): Promise<InviteValidationResult> {
  const { workspaceId } = token;
  // Two guests with one invite: the second waits, and finds it used.
  await lock(connection, workspaceId);
  const invite = await find(connection, token);
  if ('reason' in invite) return { ok: false, reason: invite.reason };
  const userId = await guest();
  await connection.query(
    'UPDATE or3.invite SET accepted_at = now(), accepted_by = $2, updated_at = now() WHERE invite_id = $1',
    [invite.id, userId],
  );
  const before = await roleOf(connection, workspaceId, userId);
  // An invite does not take away what a member may do.
  const role = before !== null && includes(before, invite.role) ? before : invite.role;
  if (role !== before) await set(connection, workspaceId, userId, role);
  await setActive(connection, userId, workspaceId);
  return { ok: true, role };
}

type Found = { id: string; role: WorkspaceRole } | { reason: InviteRefusal };

/** Why an invite does not hold, by its status. */
const refusals: Record<Exclude<InviteStatus, 'pending'>, InviteRefusal> = {
  accepted: 'already_used',
  revoked: 'revoked',
  expired: 'expired',
};

async function find(connection: Queryable, token: InviteToken): Promise<Found> {
  const { rows } = await connection.query(
    `SELECT i.invite_id, i.role, ${status} AS status, i.token_hash = $3 AS is_token
       FROM or3.invite AS i JOIN or3.workspace AS w USING (workspace_id)
      WHERE i.workspace_id = $1 AND i.email = $2 AND w.deleted_at IS NULL
      ORDER BY is_token DESC, (${status} = 'pending') DESC, i.created_at DESC LIMIT 1`,
    [token.workspaceId, normalizedEmail(token.email), token.tokenHash],
  );
  const [invite] = rows;
  if (invite === undefined) return { reason: 'not_found' };
  if (!invite.is_token) return { reason: 'token_mismatch' };
  const held = invite.status as InviteStatus;
  return held === 'pending'
    ? { id: invite.invite_id, role: invite.role }
    : { reason: refusals[held] };
}
