/** Users, and the identities by which providers of authentication know them. */
import type { Identity } from '../host.ts';
import { ProviderError } from '../error.ts';
import { invalid } from './arguments.ts';
import type { Queryable } from './database.ts';

export interface User {
  userId: string;
  email?: string;
  displayName?: string;
}

export async function find(connection: Queryable, identity: Identity): Promise<User | null> {
  const { rows } = await connection.query(
    `SELECT u.user_id, u.email, u.display_name
       FROM or3.account AS a JOIN or3.app_user AS u USING (user_id)
      WHERE a.provider = $1 AND a.provider_user_id = $2`,
    [identity.provider, identity.providerUserId],
  );
  if (rows.length === 0) return null;
  const { user_id, email, display_name } = rows[0];
  const user: User = { userId: user_id };
  if (email !== null) user.email = email;
  if (display_name !== null) user.displayName = display_name;
  return user;
}

export async function findOrCreate(
  connection: Queryable,
  input: Identity & { email?: string; displayName?: string },
): Promise<{ userId: string; createdUser: boolean }> {
  const { provider, providerUserId } = input;
  if (!provider || !providerUserId) invalid('The provider and its user id must not be empty.');
  const known = await find(connection, input);
  if (known) return { userId: known.userId, createdUser: false };
  // Of two first requests at once, one waits here and then finds the other's user.
  await connection.query(
    "SELECT pg_advisory_xact_lock(hashtextextended('or3:' || $1 || chr(31) || $2, 1))",
    [provider, providerUserId],
  );
  const made = await find(connection, input);
  if (made) return { userId: made.userId, createdUser: false };
  const { rows } = await connection.query(
    'INSERT INTO or3.app_user (email, display_name) VALUES ($1, $2) RETURNING user_id',
    [input.email === undefined ? null : normalizedEmail(input.email), input.displayName ?? null],
  );
  const userId: string = rows[0].user_id;
  await connection.query(
    'INSERT INTO or3.account (provider, provider_user_id, user_id) VALUES ($1, $2, $3)',
    [provider, providerUserId, userId],
  );
  return { userId, createdUser: true };
}

/** The user's row, which then nobody else changes until the transaction ends. */
export async function lock(
  connection: Queryable,
  userId: string,
): Promise<{ activeWorkspaceId: string | null }> {
  const { rows } = await connection.query(
    'SELECT active_workspace_id FROM or3.app_user WHERE user_id = $1 FOR UPDATE',
    [userId],
  );
  if (rows.length === 0) throw new ProviderError('unknown_user');
  return { activeWorkspaceId: rows[0].active_workspace_id };
}

export async function setActive(
  connection: Queryable,
  userId: string,
  workspaceId: string,
): Promise<void> {
  await connection.query('UPDATE or3.app_user SET active_workspace_id = $2 WHERE user_id = $1', [
    userId,
    workspaceId,
  ]);
}

export function normalizedEmail(email: string): string {
  return email.trim().toLowerCase();
}
