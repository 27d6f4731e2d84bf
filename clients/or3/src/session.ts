/** Who a request speaks for. */
import type { RequestEvent } from './host.ts';
import { ProviderError } from './error.ts';

/** The app keeps the session that it has resolved under such a key of the event's context. */
const prefix = '__or3_session_context_';

/**
 * The user of a request. To sync_ext a caller without a user is trusted, so a request
 * without one, or with more than one, must not come that far.
 */
export function userOf(event: RequestEvent): string {
  const users = new Set<string>();
  for (const [key, session] of Object.entries(event?.context ?? {})) {
    if (!key.startsWith(prefix)) continue;
    const user = authenticatedUser(session);
    if (user !== undefined) users.add(user);
  }
  const [user] = users;
  if (user === undefined || users.size > 1) throw new ProviderError('no_session');
  return user;
}

function authenticatedUser(session: unknown): string | undefined {
  const { authenticated, user } = (session ?? {}) as {
    authenticated?: unknown;
    user?: { id?: unknown };
  };
  const id = user?.id;
  return authenticated === true && isUserId(id) ? id : undefined;
}

/** One that sync_ext takes for a user: an empty one means "trusted" there. */
export function isUserId(id: unknown): id is string {
  return typeof id === 'string' && id.trim() !== '' && !id.includes('\0');
}
