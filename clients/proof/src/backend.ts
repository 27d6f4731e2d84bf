import pg from 'pg';
import { Cluster, type Gateway } from '../../support/cluster.ts';

/** An entry of a workspace's log. */
export interface Logged {
  version: number;
  opId: string;
  tableName: string;
  pk: string;
  operation: 'put' | 'delete' | 'patch';
  applied: boolean;
  clock: number;
  hlc: string;
  scope: string | null;
}

export interface LiveRecord {
  tableName: string;
  pk: string;
  version: number;
  payload: Record<string, unknown>;
}

const DATABASE = 'app';
export const OWNER = 'boss';

/**
 * The tables. Each push ages its entries in its own transaction, so that GC may purge them at once
 * and no proof ever covers an entry that changes.
 */
const SCHEMA = `
  create extension sync_ext;
  select sync_register_table('notes', patches => true, scope_field => 'in'), sync_register_table('files', scope_field => 'in'),
    sync_register_table('cards', patches => true);
  create table lists (
    id text primary key, workspace_id text not null, title text not null, unique (workspace_id, id));
  create table todos (
    id text primary key, workspace_id text not null, list_id text not null,
    title text not null check (title <> ''), n integer, done boolean not null default false,
    foreign key (workspace_id, list_id) references lists (workspace_id, id) on delete cascade);
  select sync_attach_table('lists'), sync_attach_table('todos', patches => true);
  create schema proof;
  create function proof.sync_push(workspace text, ops json) returns json language plpgsql as $$
  declare
    before bigint := (select w.head from sync_ext.workspace w where w.workspace_id = $1);
    reply json;
  begin
    reply := public.sync_push($1, $2);
    update sync_ext.change_log c set created_at = c.created_at - interval '40 days'
      from sync_ext.workspace w
      where w.workspace_id = $1 and c.workspace_key = w.workspace_key
        and c.server_version > coalesce(before, 0) and c.created_at > now() - interval '1 day';
    return reply;
  end $$;
  create role gateway superuser login;
  alter role gateway set search_path = proof, public;`;

/** The server: Postgres with the extension, and the gateway. */
export class Backend {
  readonly #cluster: Cluster;
  #gateway: Gateway | undefined;
  #admin: pg.Client | undefined;

  private constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  static async start(): Promise<Backend> {
    const settings = { shared_preload_libraries: '', 'sync_ext.notify': 'hint', max_connections: 100 };
    const backend = new Backend(await Cluster.start({ settings }));
    await backend.#cluster.sql('postgres', 'create database pristine');
    await backend.#cluster.sql('pristine', SCHEMA);
    await backend.renew();
    return backend;
  }

  /** Begins with an empty database. */
  async renew(): Promise<void> {
    await this.#offline();
    await this.#cluster.sql('postgres', `
      drop database if exists ${DATABASE} with (force);
      drop database if exists backup with (force);
      create database ${DATABASE} template pristine;`);
    await this.#online();
    if (!this.#gateway) await this.startGateway();
    else await this.#listening();
  }

  async stop(): Promise<void> {
    await this.#offline();
    await this.#cluster.stop();
  }

  async #online(): Promise<void> {
    this.#admin = new pg.Client(this.#cluster.connection(DATABASE));
    // It dies with its server.
    this.#admin.on('error', () => {});
    await this.#admin.connect();
  }

  async #offline(): Promise<void> {
    await this.#admin?.end().catch(() => {});
    this.#admin = undefined;
  }

  async query<T extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<T[]> {
    return (await this.#admin!.query<T>(sql, values)).rows;
  }

  get url(): string | undefined {
    return this.#gateway?.url;
  }

  async startGateway(): Promise<void> {
    const env = { GATEWAY_DATABASE_TIMEOUT: '1', GATEWAY_STOP_TIMEOUT: '0.01', GATEWAY_LOG_LEVEL: 'off' };
    this.#gateway = await this.#cluster.startGateway(DATABASE, { user: 'gateway', env });
    if (this.#admin) await this.#listening();
  }

  async stopGateway(): Promise<void> {
    const gateway = this.#gateway;
    this.#gateway = undefined;
    await gateway?.stop();
  }

  /** Waits until the gateway hears of what is pushed. */
  async #listening(): Promise<void> {
    while (this.#gateway && !(await fetch(`${this.#gateway.url}/health`)).ok) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async killServer(): Promise<void> {
    await this.#cluster.kill();
    await this.#offline();
  }

  async restartServer(): Promise<void> {
    await this.#cluster.restart();
    await this.#online();
    await this.#listening();
  }

  /** Takes a copy of the database, or puts it back. Nobody may be connected meanwhile. */
  async copy(from: string, to: string): Promise<void> {
    await this.#offline();
    await this.#cluster.sql('postgres', `
      alter database ${from} allow_connections false;
      select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where datname = '${from}';
      drop database if exists ${to} with (force);
      create database ${to} template ${from};
      alter database ${from} allow_connections true;
      alter database ${to} allow_connections true;`);
    await this.#online();
    await this.#listening();
  }

  async backUp(): Promise<void> {
    await this.copy(DATABASE, 'backup');
  }

  async restore(): Promise<void> {
    await this.copy('backup', DATABASE);
  }

  async createWorkspace(workspace: string, users: string[]): Promise<void> {
    await this.query('select sync_create_workspace($1, $2)', [workspace, OWNER]);
    for (const user of users) await this.setRole(workspace, user, 'editor');
  }

  /** Somebody writes these by SQL. */
  async put(workspace: string, table: string, pks: string[], value: number): Promise<void> {
    const put = `select sync_put($1, $2, pk, json_build_object('id', pk, 'a', $4::int)) from unnest($3::text[]) pk`;
    await this.query(put, [workspace, table, pks, value]);
  }

  async dropWorkspace(workspace: string): Promise<void> {
    await this.query('delete from lists where workspace_id = $1', [workspace]);
    await this.query('select sync_drop_workspace($1)', [workspace]);
  }

  async setRole(workspace: string, user: string, role: 'viewer' | 'editor' | 'none'): Promise<void> {
    if (role === 'none') await this.query('select sync_remove_member($1, $2)', [workspace, user]);
    else await this.query('select sync_set_member($1, $2, $3)', [workspace, user, role]);
  }

  /** All of the log is old enough to be purged. */
  async age(workspace: string): Promise<void> {
    const aged = `
      update sync_ext.change_log c set created_at = c.created_at - interval '40 days'
        from sync_ext.workspace w
        where w.workspace_id = $1 and c.workspace_key = w.workspace_key and c.created_at > now() - interval '1 day'`;
    await this.query(aged, [workspace]);
  }

  /** Purges what is old and nobody needs, and who of these devices was away for long does not count. */
  async purge(workspace: string, sleepers: string[]): Promise<number> {
    const asleep = `update sync_ext.device_cursor set updated_at = now() - interval '100 days' where device_id = any ($1)`;
    await this.query(asleep, [sleepers]);
    const [row] = await this.query<{ gc: { changesDeleted: number; tombstonesDeleted: number } }>(
      'select sync_gc($1) as gc', [workspace],
    );
    return row!.gc.changesDeleted + row!.gc.tombstonesDeleted;
  }

  async log(workspace: string): Promise<Logged[]> {
    const rows = await this.query<Logged>(`
      select server_version::int as version, op_id as "opId", table_name as "tableName", pk, operation, applied,
             clock::float8 as clock, hlc, scope
        from sync_ext.change_log join sync_ext.workspace using (workspace_key)
        where workspace_id = $1 order by server_version`, [workspace]);
    return rows;
  }

  async head(workspace: string): Promise<number> {
    const [row] = await this.query<{ head: number }>(
      'select head::int as head from sync_ext.workspace where workspace_id = $1', [workspace],
    );
    return row?.head ?? 0;
  }

  async records(workspace: string): Promise<LiveRecord[]> {
    return await this.query<LiveRecord>(`
      select table_name as "tableName", pk, server_version::int as version, payload
        from sync_ext.current_record where workspace_id = $1 and not deleted`, [workspace]);
  }

  /** The cursors that the devices of a workspace have acknowledged. */
  async cursors(workspace: string): Promise<Map<string, number>> {
    const rows = await this.query<{ device: string; version: number }>(`
      select device_id as device, last_seen_version::int as version
        from sync_ext.device_cursor join sync_ext.workspace using (workspace_key) where workspace_id = $1`, [workspace]);
    return new Map(rows.map(({ device, version }) => [device, version]));
  }

  /** How much the typed tables differ from their records. */
  async differences(workspace: string): Promise<{ differencesTotal: number; differences: unknown[] }[]> {
    const rows = await this.query<{ report: { differencesTotal: number; differences: unknown[] } }>(
      `select sync_check_table(t::regclass, $1) as report from unnest('{lists,todos}'::text[]) t`, [workspace],
    );
    return rows.map(({ report }) => report);
  }
}
