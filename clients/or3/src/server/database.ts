/** node-postgres, as far as it is used, and calls of sync_ext for a user. */
import { isPassing, ProviderError, toProviderError } from '../error.ts';
import { isUserId } from '../session.ts';

export interface Queryable {
  query(text: string, values?: unknown[]): Promise<{ rows: any[]; rowCount: number | null }>;
}

/** A `pg.Pool` is one. */
export interface Database extends Queryable {
  connect(): Promise<Connection>;
}

export interface Connection extends Queryable {
  release(error?: Error | boolean): void;
  on(event: 'error', listener: () => void): unknown;
  off(event: 'error', listener: () => void): unknown;
}

const attempts = 4;

/**
 * Calls a function of sync_ext for a user, in one statement: no connection keeps the user,
 * whatever pools it. `call` is SQL with the arguments as $2, $3 and so on.
 */
export async function callFor<T>(
  database: Queryable,
  userId: string,
  call: string,
  values: unknown[],
): Promise<T> {
  requireUserId(userId);
  const text = `SELECT ${call} AS reply FROM set_config('sync_ext.user_id', $1, true)`;
  return await repeated(
    async () => (await database.query(text, [userId, ...values])).rows[0].reply,
  );
}

/**
 * A transaction for a user, or with NULL for the app itself, which sync_ext trusts. Repeated
 * if another one interferes.
 */
export async function transactionFor<T>(
  database: Database,
  userId: string | null,
  work: (connection: Queryable) => Promise<T>,
): Promise<T> {
  if (userId !== null) requireUserId(userId);
  return await repeated(() =>
    transaction(database, async (connection) => {
      // Also without a user: a pooled connection might have one.
      await connection.query("SELECT set_config('sync_ext.user_id', $1, true)", [userId ?? '']);
      return await work(connection);
    }),
  );
}

export async function transaction<T>(
  database: Database,
  work: (connection: Queryable) => Promise<T>,
): Promise<T> {
  const connection = await database.connect();
  // If it is lost between two statements, the next one fails; without a listener the
  // process would end.
  connection.on('error', ignore);
  try {
    await connection.query('BEGIN');
    const result = await work(connection);
    await connection.query('COMMIT');
    putBack(connection);
    return result;
  } catch (error) {
    await connection.query('ROLLBACK').then(
      () => putBack(connection),
      // Not one for others.
      () => connection.release(true),
    );
    throw error;
  }
}

function putBack(connection: Connection): void {
  connection.off('error', ignore);
  connection.release();
}

function ignore(): void {}

async function repeated<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === attempts || !isPassing(error)) throw toProviderError(error);
    }
  }
}

function requireUserId(userId: string): void {
  if (!isUserId(userId)) throw new ProviderError('no_session');
}
