import { describe, expect, test } from 'vitest';
import { Server, type ServerOptions } from '../src/server.ts';
import { failure, never } from './support/device.ts';

interface Request {
  url: string;
  init: RequestInit & { headers: Headers };
}

/** A server that gives these answers, and what it was asked. */
function serverOf(answers: (Response | Error)[], options: Partial<ServerOptions> = {}) {
  const asked: Request[] = [];
  const fetch = async (url: unknown, init: unknown) => {
    asked.push({ url: String(url), init: init as Request['init'] });
    const answer = answers.shift()!;
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { server: new Server({ url: '/sync', fetch: fetch as typeof globalThis.fetch, ...options }), asked };
}

const refusal = (status: number, error: unknown, headers: HeadersInit = {}) => Response.json({ error }, { status, headers });
const call = (server: Server) => server.call('w', 'pull', {}, never);

describe('a call', () => {
  test('is_a_post_of_json_to_its_workspace', async () => {
    const { server, asked } = serverOf([Response.json({ a: 1 })]);
    expect(await server.call('a/b ü', 'push', [{ pk: '\u{1f600}' }], never)).toEqual({ a: 1 });
    const [{ url, init }] = asked as [Request];
    expect(url).toBe('/sync/workspaces/a%2Fb%20%C3%BC/push');
    expect([init.method, init.body, init.headers.get('content-type')]).toEqual(['POST', '[{"pk":"\u{1f600}"}]', 'application/json']);
  });

  test('has_the_headers_of_the_app_and_asks_for_them_each_time', async () => {
    let token = 0;
    const { server, asked } = serverOf([Response.json({}), Response.json({})], { headers: async () => ({ authorization: `token ${++token}` }) });
    await call(server);
    await call(server);
    expect(asked.map(({ init }) => init.headers.get('authorization'))).toEqual(['token 1', 'token 2']);
  });

  test('that_is_not_authorized_is_made_again_once_with_new_headers', async () => {
    let token = 0;
    const answers = [refusal(401, { code: '28000', message: 'expired' }), Response.json({ a: 1 })];
    const { server, asked } = serverOf(answers, { headers: () => ({ authorization: `${++token}` }) });
    expect(await call(server)).toEqual({ a: 1 });
    expect(asked.map(({ init }) => init.headers.get('authorization'))).toEqual(['1', '2']);
  });

  test('that_is_not_authorized_twice_is_refused', async () => {
    const answers = [1, 2, 3].map(() => refusal(401, { code: '28000', message: 'expired' }));
    const { server, asked } = serverOf(answers, { headers: () => ({}) });
    expect(await failure(call(server))).toMatchObject({ code: '28000', status: 401, remedy: 'login' });
    expect(asked).toHaveLength(2);
  });

  test('that_is_not_authorized_without_headers_is_refused_at_once', async () => {
    const { server, asked } = serverOf([refusal(401, { code: '28000', message: 'missing' })]);
    expect((await failure(call(server))).code).toBe('28000');
    expect(asked).toHaveLength(1);
  });

  test('tells_all_of_an_error', async () => {
    const error = { code: '54000', message: 'too many ops in one push', detail: 'd', hint: 'h' };
    const { server } = serverOf([refusal(400, error, { 'retry-after': '3' })]);
    expect(await failure(call(server))).toMatchObject({ ...error, status: 400, retryAfter: 3000 });
  });

  test.each<[string, () => Response]>([
    ['a_page', () => new Response('<h1>Bad gateway</h1>', { status: 502 })],
    ['nothing', () => new Response(null, { status: 502 })],
    ['null', () => Response.json(null, { status: 502 })],
    ['a_text', () => Response.json('bad gateway', { status: 502 })],
    ['another_error', () => Response.json({ error: 'bad gateway' }, { status: 502 })],
  ])('that_a_proxy_answers_with_%s_is_an_error_of_http', async (_, answer) => {
    const { server } = serverOf([answer()]);
    expect(await failure(call(server))).toMatchObject({ code: 'HTTP', message: 'HTTP status 502', status: 502, remedy: 'later' });
  });

  test.each<[string, () => Response]>([
    ['is_cut', () => new Response('{"a":')],
    ['is_a_page', () => new Response('<h1>Log in to this network</h1>')],
  ])('whose_answer_%s_has_none', async (_, answer) => {
    const { server } = serverOf([answer()]);
    const { code, remedy, status } = await failure(call(server));
    expect([code, remedy, status]).toEqual(['NETWORK', 'later', undefined]);
  });

  test('without_an_answer_is_an_error_of_the_network', async () => {
    const cause = new TypeError('Failed to fetch');
    const { server } = serverOf([cause]);
    expect(await failure(call(server))).toMatchObject({ code: 'NETWORK', cause });
  });

  test('whose_headers_cannot_be_had_is_one_too', async () => {
    const cause = new TypeError('Failed to fetch');
    const { server, asked } = serverOf([], { headers: () => Promise.reject(cause) });
    expect(await failure(call(server))).toMatchObject({ code: 'NETWORK', cause, remedy: 'later' });
    expect(asked).toEqual([]);
  });

  test('ends_with_its_signal_and_after_its_time', async () => {
    const { server, asked } = serverOf([Response.json({}), Response.json({})], { timeout: 0 });
    const controller = new AbortController();
    await server.call('w', 'pull', {}, controller.signal);
    controller.abort();
    expect(asked[0]!.init.signal!.aborted).toBe(true);
    await call(server);
    await expect.poll(() => asked[1]!.init.signal!.aborted).toBe(true);
  });
});

describe('a stream', () => {
  test('is_read_from_its_address', async () => {
    const { server, asked } = serverOf([new Response('data: 1\n\n')], { headers: () => ({ authorization: 'me' }) });
    const body = await server.stream(new URLSearchParams({ workspace: 'a&b' }), never);
    expect(await new Response(body).text()).toBe('data: 1\n\n');
    expect([asked[0]!.url, asked[0]!.init.method, asked[0]!.init.headers.get('authorization')]).toEqual(['/sync/live?workspace=a%26b', undefined, 'me']);
    expect(asked[0]!.init.headers.has('content-type')).toBe(false);
  });

  test('without_a_body_is_an_error_of_the_network', async () => {
    const { server } = serverOf([new Response(null)]);
    expect((await failure(server.stream(new URLSearchParams(), never))).code).toBe('NETWORK');
  });

  test('that_is_refused_tells_why', async () => {
    const { server } = serverOf([refusal(400, { code: '22023', message: 'invalid request' })]);
    expect(await failure(server.stream(new URLSearchParams(), never))).toMatchObject({ code: '22023', remedy: 'stop' });
  });
});
