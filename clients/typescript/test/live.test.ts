import { expect, test } from 'vitest';
import { type Follower, Live } from '../src/live.ts';
import { Server } from '../src/server.ts';

/** A server of streams: which are open, by their workspaces, and what it sends. */
class Streams {
  readonly open = new Map<string, ReadableStreamDefaultController<Uint8Array>>();
  /** The most that were ever open at the same time. */
  most = 0;
  readonly live = new Live(new Server({ url: '/sync', fetch: (input, init) => this.#fetch(String(input), init!) }));

  async #fetch(url: string, { signal }: RequestInit): Promise<Response> {
    signal!.throwIfAborted();
    const name = new URL(url, 'http://page').searchParams.getAll('workspace').join('+');
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.open.set(name, controller);
        this.most = Math.max(this.most, this.open.size);
        signal!.addEventListener('abort', () => {
          this.open.delete(name);
          controller.error(signal!.reason);
        });
      },
      cancel: () => void this.open.delete(name),
    });
    return new Response(body);
  }

  /** An event for a workspace, on the stream of these. */
  send(name: string, workspaceId: string): void {
    this.open.get(name)!.enqueue(new TextEncoder().encode(`event: changes\ndata: ${JSON.stringify({ workspaceId })}\n\n`));
  }

  names(): string[] {
    return [...this.open.keys()];
  }
}

/** One that goes on with events, or leaves at the first. */
function follower(workspace: string, goesOn = true): Follower & { received: number } {
  return {
    workspace,
    filter: null,
    received: 0,
    position: async () => ({ cursor: 0, proof: null, scopes: null, deviceId: 'd', generation: 0 }),
    async receive() {
      this.received++;
      return goesOn;
    },
    refused: () => {},
    connected: () => {},
  };
}

test('a stream that its last follower has left is closed before another one is opened', async () => {
  const streams = new Streams();
  const end = streams.live.follow(follower('home', false));
  await expect.poll(() => streams.names()).toEqual(['home']);
  streams.send('home', 'home');
  await expect.poll(() => streams.names()).toEqual([]);
  const others = [streams.live.follow(follower('work')), streams.live.follow(follower('home'))];
  await expect.poll(() => streams.names()).toEqual(['work+home']);
  end();
  expect(streams.most).toBe(1);
  for (const end of others) end();
});

test('who has left a stream takes nobody from it who came since', async () => {
  const streams = new Streams();
  const [first, second] = [follower('home', false), follower('home')];
  const ends = [streams.live.follow(follower('work')), streams.live.follow(first)];
  await expect.poll(() => streams.names()).toEqual(['work+home']);
  streams.send('work+home', 'home');
  await expect.poll(() => first.received).toBe(1);
  ends.push(streams.live.follow(second));
  ends[1]!();
  await expect.poll(() => streams.names()).toEqual(['work+home']);
  streams.send('work+home', 'home');
  await expect.poll(() => second.received).toBe(1);
  for (const end of ends) end();
});
