/** A database that is set up as the README says, with the adapter and the store on it. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { Cluster } from '../../../support/cluster.ts';
import type { PendingOp, PushResultItem, RequestEvent, WorkspaceRole } from '../../src/host.ts';
import { SyncExtGatewayAdapter } from '../../src/server/adapter.ts';
import { migrate } from '../../src/server/migrate.ts';
import { SyncExtAuthWorkspaceStore } from '../../src/server/store.ts';

export class World {
  readonly cluster: Cluster;
  readonly database: string;
  /** The superuser's. */
  readonly admin: pg.Pool;
  /** Of the store's login. */
  readonly app: pg.Pool;
  /** Of the adapter's login, which cannot call sync_ext without a user. */
  readonly sync: pg.Pool;
  readonly store: SyncExtAuthWorkspaceStore;
  readonly adapter: SyncExtGatewayAdapter;
  #users = 0;

  private constructor(cluster: Cluster, database: string) {
    this.cluster = cluster;
    this.database = database;
    const pool = (user: string) => new pg.Pool(cluster.connection(database, user));
    [this.admin, this.app, this.sync] = [pool('postgres'), pool('or3_app'), pool('or3_sync')];
    this.store = new SyncExtAuthWorkspaceStore({ database: this.app });
    this.adapter = new SyncExtGatewayAdapter({ database: this.sync });
  }

  static async create(): Promise<World> {
    const cluster = Cluster.at(inject('cluster'));
    const world = new World(cluster, await cluster.createDatabase());
    for (const grantTo of ['or3_app', 'or3_sync']) await migrate(world.admin, { grantTo });
    return world;
  }

  async end(): Promise<void> {
    await Promise.all([this.admin.end(), this.app.end(), this.sync.end()]);
    await this.cluster.dropDatabase(this.database);
    await this.cluster.stop();
  }

  async user(): Promise<string> {
    const providerUserId = `user-${++this.#users}`;
    return (await this.store.getOrCreateUser({ provider: 'test', providerUserId })).userId;
  }

  /** A workspace of a new owner. */
  async workspace(): Promise<{ owner: string; workspaceId: string; event: RequestEvent }> {
    const owner = await this.user();
    const { workspaceId } = await this.store.createWorkspace({ userId: owner, name: 'Test' });
    return { owner, workspaceId, event: eventOf(owner) };
  }

  /** Another member of a workspace. */
  async member(workspaceId: string, role: WorkspaceRole): Promise<string> {
    const userId = await this.user();
    await this.store.upsertMember({ workspaceId, emailOrProviderId: userId, role });
    return userId;
  }

  /** Pushes as a user, and demands that every op is stored. */
  async push(userId: string, workspaceId: string, ...ops: PendingOp[]): Promise<PushResultItem[]> {
    const { results } = await this.adapter.push(eventOf(userId), { scope: { workspaceId }, ops });
    const refused = results.find(({ success }) => !success);
    if (refused) throw new Error(`refused: ${JSON.stringify(refused)}`);
    return results;
  }

  /** Purges what GC may purge of everything that was pushed so far. */
  async purge(workspaceId: string): Promise<void> {
    await this.admin.query(
      "update sync_ext.change_log set created_at = created_at - interval '1 year'",
    );
    await this.admin.query('select sync_gc($1)', [workspaceId]);
  }

  /** How many connections to this database wait for a lock. */
  async waiting(): Promise<number> {
    const { rows } = await this.admin.query(
      `select count(*)::int from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return rows[0].count;
  }

  /** The live records, as sync_ext has them. */
  async records(workspaceId: string): Promise<Map<string, unknown>> {
    const { rows } = await this.admin.query(
      `select table_name, pk, payload from sync_ext.current_record
        where workspace_id = $1 and not deleted`,
      [workspaceId],
    );
    return new Map(rows.map(({ table_name, pk, payload }) => [`${table_name}/${pk}`, payload]));
  }
}

/** A request with the session that the app resolves. */
export function eventOf(userId: string): RequestEvent {
  const session = { authenticated: true, user: { id: userId }, workspace: { id: 'any' } };
  return { context: { __or3_session_context_1_test: session } };
}

export const nobody: RequestEvent = { context: {} };

let hlcs = 0;

/** A put, or without a payload a delete. Later ones have higher hlcs. */
export function op(
  tableName: string,
  pk: string,
  payload: Record<string, unknown> | null,
  stamp: Partial<PendingOp['stamp']> = {},
): PendingOp {
  const hlc = `${String(1_767_225_600_000 + ++hlcs).padStart(13, '0')}:0000:device`;
  return {
    tableName,
    operation: payload === null ? 'delete' : 'put',
    pk,
    ...(payload !== null && { payload }),
    stamp: { deviceId: 'device', opId: randomUUID(), hlc, clock: 1, ...stamp },
  };
}

/** The named error that a promise is rejected with. */
export async function failureOf(
  promise: Promise<unknown>,
): Promise<{ code: string; status: number } | string> {
  try {
    await promise;
  } catch (error) {
    const { code, statusCode } = error as { code?: string; statusCode?: number };
    return code !== undefined && statusCode !== undefined
      ? { code, status: statusCode }
      : String(error);
  }
  return 'no error';
}
