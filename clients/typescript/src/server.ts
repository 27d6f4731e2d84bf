import { SyncError } from './error.ts';

export interface ServerOptions {
  /** The gateway's address, also relative to the page: `/sync`. */
  url: string;
  /** Headers for each request, like `authorization`; asked again after a 401. */
  headers?: () => HeadersInit | Promise<HeadersInit>;
  /** In place of the global one. */
  fetch?: typeof fetch;
  /** Milliseconds after which a call without an answer is given up; default 60,000. */
  timeout?: number;
}

/** The gateway. */
export class Server {
  readonly #options: ServerOptions;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** One of the calls of a workspace. */
  async call<T>(workspace: string, name: string, body: unknown, signal: AbortSignal): Promise<T> {
    const response = await this.#fetch(`/workspaces/${encodeURIComponent(workspace)}/${name}`, {
      method: 'POST',
      body: JSON.stringify(body),
      signal: AbortSignal.any([signal, AbortSignal.timeout(this.#options.timeout ?? 60_000)]),
    });
    try {
      return await response.json() as T;
    } catch (cause) {
      throw new SyncError('NETWORK', 'the answer is cut or no JSON', { cause });
    }
  }

  /** The bytes of a stream of server-sent events. */
  async stream(query: URLSearchParams, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.#fetch(`/live?${query}`, { signal });
    if (!body) throw new SyncError('NETWORK', 'no body');
    return body;
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const { url, headers, fetch = globalThis.fetch } = this.#options;
    for (let attempt = 1; ; attempt++) {
      let response;
      try {
        const all = new Headers(await headers?.());
        if (init.body) all.set('content-type', 'application/json');
        response = await fetch(url + path, { ...init, headers: all });
      } catch (cause) {
        throw new SyncError('NETWORK', 'no answer', { cause });
      }
      if (response.ok) return response;
      // The first may have been refused because its token has expired.
      if (response.status === 401 && headers && attempt === 1) continue;
      throw await readError(response);
    }
  }
}

async function readError(response: Response): Promise<SyncError> {
  const { status } = response;
  const more = { status, retryAfter: 1000 * Number(response.headers.get('retry-after')) || undefined };
  // What a proxy answers has another body, or none.
  const body = await response.json().catch(() => null) as { error?: Partial<SyncError> } | null;
  const error = typeof body?.error?.code === 'string' ? body.error : {};
  const { code = 'HTTP', message = `HTTP status ${status}`, detail, hint } = error;
  return new SyncError(code, message, { ...more, detail, hint });
}
