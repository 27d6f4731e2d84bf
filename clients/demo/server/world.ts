import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Plugin, PreviewServer, ProxyOptions, ViteDevServer } from 'vite';
import { Cluster } from '../../support/cluster.ts';
import { statements } from './statements.ts';

/** What the page asks for before it begins. */
export interface Start {
  /** Names the databases of this run: those of another one have nothing in common with it. */
  run: string;
  statements: string[];
}

/** A throw-away cluster with the app's tables, and a gateway beside it. Both end with this process. */
export class World {
  readonly proxy: Record<string, ProxyOptions>;
  readonly #cluster: Cluster;
  readonly #database: string;
  readonly #start: Start;

  private constructor(cluster: Cluster, database: string, gateway: string) {
    this.#cluster = cluster;
    this.#database = database;
    this.#start = { run: `${Date.now()}`, statements };
    this.proxy = { '/sync': { target: gateway, rewrite: (path) => path.slice('/sync'.length) } };
  }

  static async start(): Promise<World> {
    const cluster = await Cluster.start();
    const schema = readFileSync(new URL('database.sql', import.meta.url), 'utf8');
    const database = await cluster.createDatabase(schema);
    const { url } = await cluster.startGateway(database, { user: 'gateway' });
    return new World(cluster, database, url);
  }

  /** Serves what the page needs beside the gateway. */
  plugin(): Plugin {
    const use = (server: PreviewServer | ViteDevServer) => {
      server.middlewares.use('/demo', (request, response) => void this.#serve(request, response));
      const printUrls = server.printUrls.bind(server);
      server.printUrls = () => {
        printUrls();
        const psql = `psql "${this.#cluster.connectionString(this.#database)}"`;
        console.log(`\n  Change rows by SQL:  ${psql}\n  Ctrl-C stops everything and removes it.\n`);
      };
    };
    return { name: 'world', configureServer: use, configurePreviewServer: use };
  }

  /** `GET /demo`: what to begin with. `POST /demo/2`: runs that statement. */
  async #serve({ method, url }: IncomingMessage, response: ServerResponse): Promise<void> {
    const statement = statements[Number(url?.slice(1))];
    try {
      if (method === 'POST' && statement) await this.#cluster.sql(this.#database, statement);
      response.setHeader('content-type', 'application/json').end(JSON.stringify(this.#start));
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  }
}
