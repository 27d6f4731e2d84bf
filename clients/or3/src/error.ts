/**
 * Every failure has a name, which decides its HTTP status. Failures of the database are
 * named by their SQLSTATE.
 */

const statuses = {
  no_session: 401,
  not_a_member: 403,
  device_of_another_user: 403,
  unknown_user: 404,
  unknown_workspace: 404,
  unknown_member: 404,
  unknown_invite: 404,
  invalid_request: 400,
  too_large: 413,
  quota_exceeded: 413,
  cursor_regressed: 409,
  cursor_above_head: 409,
  last_owner: 409,
  already_exists: 409,
  upload_not_active: 409,
  members_kept_elsewhere: 409,
  snapshot_expired: 410,
  busy: 503,
  read_only: 503,
  overloaded: 503,
  standby_behind: 503,
  workspace_elsewhere: 503,
  tables_in_change: 503,
  unavailable: 503,
  not_set_up: 500,
  internal: 500,
} as const;

export type ErrorName = keyof typeof statuses;

const texts: Record<ErrorName, string> = {
  no_session: 'the request has no session',
  not_a_member: 'no role in the workspace allows this',
  device_of_another_user: 'the device id belongs to another user',
  unknown_user: 'there is no such user',
  unknown_workspace: 'there is no such workspace',
  unknown_member: 'the user is not a member of the workspace',
  unknown_invite: 'there is no such invite',
  invalid_request: 'the request is invalid',
  too_large: 'the request or its reply is too large',
  quota_exceeded: 'the workspace has no space for the file',
  cursor_regressed: 'the device has acknowledged a higher version',
  cursor_above_head: 'the version is above the head: pull first',
  last_owner: 'the workspace must keep an owner',
  already_exists: 'it exists already',
  upload_not_active: 'the upload is not active, or not as announced',
  members_kept_elsewhere: 'members are kept by a membership function',
  snapshot_expired: 'the snapshot has expired: begin it again',
  busy: 'another transaction interferes: try again',
  read_only: 'the database is read-only',
  overloaded: 'the database has no capacity left: try again later',
  workspace_elsewhere: 'the workspace moves to another server: try again later',
  standby_behind: 'the standby is behind the snapshot: try again later',
  tables_in_change: 'the tables of sync_ext are being changed: try again later',
  unavailable: 'the database cannot be reached: try again later',
  not_set_up: 'the database is not set up: run or3-provider-sync-ext migrate',
  internal: 'internal error',
};

/**
 * What this package throws. `statusCode` and `__h3_error__` are what h3, and with it Nitro,
 * reads of an error to answer a request.
 */
export class ProviderError extends Error {
  static readonly __h3_error__ = true;
  override readonly name = 'ProviderError';
  readonly code: ErrorName;
  readonly statusCode: number;
  readonly statusMessage: string;
  readonly sqlState: string | undefined;
  /** The client sees it: never the DETAIL of an internal error, which may quote a row. */
  readonly data: { code: ErrorName; sqlState?: string; detail?: string };
  readonly fatal = false;
  readonly unhandled = false;

  constructor(
    code: ErrorName,
    options: { detail?: string | undefined; sqlState?: string | undefined; cause?: unknown } = {},
  ) {
    super(texts[code], { cause: options.cause });
    this.code = code;
    this.statusCode = statuses[code];
    this.statusMessage = texts[code];
    this.sqlState = options.sqlState;
    this.data = { code };
    if (options.sqlState !== undefined) this.data.sqlState = options.sqlState;
    if (options.detail !== undefined) this.data.detail = options.detail;
  }

  toJSON() {
    const { message, statusCode, statusMessage, data } = this;
    return { message, statusCode, statusMessage, data };
  }
}

/** What node-postgres throws for an error of the server. */
interface DatabaseError {
  code: string;
  message: string;
  detail?: string;
}

/** SQLSTATEs that say what happened; other ones are named by their class. */
const bySqlState: Record<string, ErrorName> = {
  SX001: 'snapshot_expired',
  SX002: 'standby_behind',
  SX003: 'cursor_above_head',
  SX004: 'workspace_elsewhere',
  '25006': 'read_only',
  '40001': 'busy',
  '40P01': 'busy',
  '55P03': 'busy',
  '42704': 'unknown_workspace',
  '42710': 'already_exists',
  '23505': 'already_exists',
  // The parser of JSON: an op is nested too deeply.
  '54001': 'too_large',
  '28000': 'unavailable',
  '28P01': 'unavailable',
  '3D000': 'unavailable',
  // A function, table or schema that the migration makes, or a right that it grants.
  '42883': 'not_set_up',
  '42P01': 'not_set_up',
  '3F000': 'not_set_up',
  '42703': 'not_set_up',
  '42501': 'not_set_up',
};

const byClass: Record<string, ErrorName> = {
  '08': 'unavailable',
  '22': 'invalid_request',
  '53': 'overloaded',
  // Other limits are of the moment.
  '54': 'overloaded',
  '57': 'unavailable',
};

/** Of 42501, 54000 and 55000, what sync_ext itself says; nothing else has these texts. */
const byText: Record<string, ErrorName> = {
  'permission denied for workspace': 'not_a_member',
  'reply is too large': 'too_large',
  'too many ops in one push': 'too_large',
  'workspace must keep an owner': 'last_owner',
  'members are kept elsewhere': 'members_kept_elsewhere',
};

/** The name of whatever was caught. */
export function toProviderError(error: unknown): ProviderError {
  if (error instanceof ProviderError) return error;
  if (!isDatabaseError(error))
    return new ProviderError(isConnectionError(error) ? 'unavailable' : 'internal', {
      cause: error,
    });
  const { code: sqlState, message, detail } = error;
  const name =
    byText[message] ??
    bySqlState[sqlState] ??
    (sqlState === '55000' ? 'tables_in_change' : undefined) ??
    byClass[sqlState.slice(0, 2)] ??
    'internal';
  const isOurs = statuses[name] < 500;
  return new ProviderError(name, { sqlState, detail: isOurs ? detail : undefined, cause: error });
}

/** SQLSTATEs with which a whole push fails because of what is in it. */
const contentStates = new Set(['22P02', '22P05', '22021']);

/** Whether a push failed because of its ops, so that a part of them may be stored. */
export function isAboutContent(error: unknown): boolean {
  const { statusCode, sqlState } = (error ?? {}) as { statusCode?: number; sqlState?: string };
  return statusCode === 413 || contentStates.has(sqlState ?? '');
}

export function isPassing(error: unknown): boolean {
  return isDatabaseError(error) && bySqlState[error.code] === 'busy';
}

function isDatabaseError(error: unknown): error is DatabaseError {
  return (
    error instanceof Error &&
    'code' in error &&
    /^[0-9A-Z]{5}$/.test(String(error.code)) &&
    'severity' in error
  );
}

/** Of the socket, or of node-postgres while it connects. */
function isConnectionError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error ? String(error.code) : '';
  return /^E[A-Z]+$/.test(code) || /connection|timeout|Client has encountered/i.test(error.message);
}
