import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Cluster } from '../../../support/cluster.ts';
import type { Todo } from './app.ts';
import { Chromium, type Tab } from './chromium.ts';
import { Front } from './front.ts';

const folder = dirname(fileURLToPath(import.meta.url));

/** A cluster with a gateway, what stands before it, and the browsers of its users. */
export class World {
  readonly cluster: Cluster;
  readonly front: Front;
  readonly #database: string;
  readonly #browsers = new Map<string, Promise<Chromium>>();
  #workspaces = 0;

  private constructor(cluster: Cluster, database: string, front: Front) {
    this.cluster = cluster;
    this.#database = database;
    this.front = front;
  }

  /** Pages are scripts by name, beside the app. */
  static async start(pages: { [name: string]: string } = {}): Promise<World> {
    const cluster = await Cluster.start();
    const database = await cluster.createDatabase(`select sync_register_table('todos', patches => true, scope_field => 'list')`);
    const gateway = await cluster.startGateway(database, { env: { GATEWAY_HEARTBEAT: '2' } });
    const texts = new Map<string, string>();
    for (const [name, path] of Object.entries({ app: join(folder, 'app.ts'), ...pages })) {
      texts.set(`/${name}`, `<!doctype html><title>${name}</title><script type="module" src="/${name}.js"></script>`);
      texts.set(`/${name}.js`, await bundle(path));
    }
    return new World(cluster, database, await Front.start(gateway.url, texts));
  }

  async stop(): Promise<void> {
    const browsers = await Promise.all(this.#browsers.values());
    await Promise.all(browsers.map((browser) => browser.stop()));
    await this.front.stop();
    await this.cluster.stop();
  }

  async sql(text: string): Promise<string> {
    return await this.cluster.sql(this.#database, text);
  }

  /** A workspace of ann and bob. */
  async newWorkspace(): Promise<string> {
    const workspace = `w${++this.#workspaces}`;
    await this.sql(`select sync_create_workspace('${workspace}', 'ann');
      select sync_set_member('${workspace}', 'bob', 'editor')`);
    return workspace;
  }

  /** Stores records, named by numbers, as if pushed by a device. */
  async fill(workspace: string, records: number, length = 20): Promise<void> {
    await this.sql(`
      select count(reply) from (
        select sync_push('${workspace}', json_agg(json_build_object(
          'tableName', 'todos', 'operation', 'put', 'pk', pk,
          'payload', json_build_object('id', pk, 'title', rpad(pk, ${length}, '.')),
          'stamp', json_build_object('deviceId', 'server', 'opId', gen_random_uuid(),
            'hlc', '0000000000000:0000:server', 'clock', 1)))) as reply
        from (select n, to_char(n, 'FM000000') as pk from generate_series(1, ${records}) n) numbered
        group by (n - 1) / 1000 order by (n - 1) / 1000) pushed`);
  }

  /** From now on a new device has to begin with a snapshot, because a delete is purged. */
  async purge(workspace: string): Promise<void> {
    const op = (operation: string, clock: number) => `select sync_push('${workspace}', json_build_array(json_build_object(
      'tableName', 'todos', 'operation', '${operation}', 'pk', 'purged', 'payload', json_build_object('id', 'purged'),
      'stamp', json_build_object('deviceId', 'server', 'opId', gen_random_uuid(), 'hlc', 'h', 'clock', ${clock}))));`;
    await this.sql(`${op('put', 1)} ${op('delete', 2)} ${op('put', 3).replaceAll('purged', 'last')}
      update sync_ext.change_log set created_at = created_at - interval '31 days';
      call sync_gc_all('${workspace}', pause => '0')`);
  }

  /** What the server has, in the order of the keys. */
  async records(workspace: string): Promise<Todo[]> {
    return JSON.parse(await this.sql(`select coalesce(json_agg(payload order by pk), '[]')
      from sync_ext.current_record where workspace_id = '${workspace}' and not deleted`)) as Todo[];
  }

  /** How many ops the server has accepted. */
  async head(workspace: string): Promise<number> {
    return Number(await this.sql(`select max(server_version) from sync_ext.change_log
      join sync_ext.workspace using (workspace_key) where workspace_id = '${workspace}'`));
  }

  async browser(user: string): Promise<Chromium> {
    const browser = this.#browsers.get(user) ?? Chromium.start();
    this.#browsers.set(user, browser);
    return await browser;
  }

  /** A new tab of the user's browser with the app, whose database is named after the workspace. */
  async tab(user: string, workspace: string, more = ''): Promise<Tab> {
    const browser = await this.browser(user);
    return await browser.tab(`${this.front.url}/app?user=${user}&workspace=${workspace}${more}`);
  }

  async closeTabs(): Promise<void> {
    for (const browser of await Promise.all(this.#browsers.values())) await browser.closeTabs();
  }
}

export async function bundle(path: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [path],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    sourcemap: 'inline',
  });
  return outputFiles[0]!.text;
}
