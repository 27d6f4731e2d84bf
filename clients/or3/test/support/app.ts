/**
 * The app's server, as far as sync goes: h3, and endpoints that resolve the session of the
 * header x-user, hand the body to the adapter, and let errors be answered by h3.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  createApp,
  createRouter,
  defineEventHandler,
  getHeader,
  readBody,
  toNodeListener,
} from 'h3';
import type { RequestEvent, SyncGatewayAdapter } from '../../src/host.ts';
import { eventOf } from './world.ts';

type Endpoint = (event: RequestEvent, body: any) => Promise<unknown>;

export class App {
  readonly url: string;
  readonly #server: Server;
  /** Requests, as `name body`. */
  readonly requests: Array<{ name: string; body: any }> = [];
  /** What to do with the next answer to an endpoint, once: lose it, or answer something else. */
  readonly accidents = new Map<string, (answer: unknown) => unknown>();

  private constructor(url: string, server: Server) {
    this.url = url;
    this.#server = server;
  }

  static async start(adapter: SyncGatewayAdapter): Promise<App> {
    const h3 = createApp();
    // As Nitro does: an endpoint without an answer is answered by 204.
    const router = createRouter({ preemptive: true });
    h3.use(router);
    const server = createServer(toNodeListener(h3)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const app = new App(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, server);
    const endpoints: Record<string, Endpoint> = {
      pull: (event, body) => adapter.pull(event, body),
      push: (event, body) => adapter.push(event, body),
      snapshot: (event, body) => adapter.snapshot!(event, body),
      'update-cursor': async (event, body) => {
        await adapter.updateCursor(event, body);
        return { ok: true };
      },
      'gc-tombstones': (event, body) => adapter.gcTombstones!(event, body),
      'gc-change-log': (event, body) => adapter.gcChangeLog!(event, body),
    };
    for (const [name, endpoint] of Object.entries(endpoints)) {
      router.post(
        `/api/sync/${name}`,
        defineEventHandler(async (event) => {
          const user = getHeader(event, 'x-user');
          if (user) Object.assign(event.context, eventOf(user).context);
          const body = await readBody(event);
          app.requests.push({ name, body });
          const answer = await endpoint(event, body);
          const accident = app.accidents.get(name);
          app.accidents.delete(name);
          return accident ? accident(answer) : answer;
        }),
      );
    }
    return app;
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}
