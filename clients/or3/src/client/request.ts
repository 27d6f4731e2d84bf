/** Calls over HTTP, and their failures. */

export interface HttpOptions {
  /** Headers of each request, such as `authorization`. */
  headers?: () => HeadersInit | Promise<HeadersInit>;
  /** Whether cookies are sent to another origin. */
  credentials?: RequestCredentials;
  /** In place of the global one. */
  fetch?: typeof fetch;
}

/** A request that was answered with another status than success. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly statusCode: number;
  /** Of the database, where the answer says it. */
  readonly sqlState: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(statusCode: number, message: string, sqlState?: string, retryAfterMs?: number) {
    super(message);
    this.statusCode = statusCode;
    this.sqlState = sqlState;
    this.retryAfterMs = retryAfterMs;
  }

  /** The session is over, or no longer allows this. */
  get isRefusal(): boolean {
    return this.statusCode === 401 || this.statusCode === 403;
  }
}

export class Http {
  readonly #base: string;
  readonly #options: HttpOptions;

  constructor(base: string, options: HttpOptions) {
    this.#base = base.replace(/\/+$/, '');
    this.#options = options;
  }

  /** POSTs JSON, given as a value or as text. An empty answer is undefined. */
  async post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const headers = { 'content-type': 'application/json' };
    const response = await this.#fetch(path, { method: 'POST', body: text, headers }, signal);
    const answer = await response.text();
    return (answer === '' ? undefined : JSON.parse(answer)) as T;
  }

  /** The bytes of a stream. */
  async stream(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const headers = { accept: 'text/event-stream' };
    const { body } = await this.#fetch(path, { headers }, signal);
    if (body === null) throw new Error('the stream has no body');
    return body;
  }

  async #fetch(path: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
    const headers = new Headers(init.headers);
    for (const [name, value] of new Headers(await this.#options.headers?.())) {
      headers.set(name, value);
    }
    const response = await (this.#options.fetch ?? fetch)(`${this.#base}${path}`, {
      ...init,
      headers,
      credentials: this.#options.credentials ?? 'same-origin',
      ...(signal && { signal }),
    });
    if (!response.ok) throw await failure(response);
    return response;
  }
}

/** The gateway answers `{error: {code, message, detail}}`, Nitro `{message, data}`. */
interface FailureBody {
  error?: { code?: string; message?: string };
  statusMessage?: string;
  message?: string;
  data?: { sqlState?: string };
}

async function failure(response: Response): Promise<RequestError> {
  const text = await response.text().catch(() => '');
  let body: FailureBody = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // Of a proxy, perhaps.
  }
  const given = typeof body.error === 'object' ? body.error : undefined;
  const message = given?.message ?? body.message ?? body.statusMessage ?? response.statusText;
  const sqlState = given?.code ?? body.data?.sqlState;
  return new RequestError(
    response.status,
    String(message).slice(0, 200) || `status ${response.status}`,
    sqlState,
    retryAfter(response.headers.get('retry-after')),
  );
}

function retryAfter(value: string | null): number | undefined {
  if (!value) return undefined;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return ms > 0 ? ms : undefined;
}
