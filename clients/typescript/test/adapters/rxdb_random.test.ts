import type { RxConflictHandler } from 'rxdb';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { RxClient, type Todo, closeClients } from './support/rxdb_client.ts';
import { World, newName } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await World.start("select sync_register_table('todos')");
});

afterAll(() => world?.stop());
afterEach(closeClients);

/** Numbers that look random, the same ones for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const words = (title: string) => title.split(' ').filter(Boolean);

/** All words of both. */
const union: RxConflictHandler<Todo> = {
  isEqual: (a, b) => a.title === b.title && a._deleted === b._deleted,
  resolve: async ({ realMasterState: theirs, newDocumentState: mine }) => ({
    ...mine,
    title: [...new Set([...words(theirs.title), ...words(mine.title)])].sort().join(' '),
    _deleted: false,
  }),
};

type Step = (client: RxClient, random: (below: number) => number) => Promise<RxClient | void>;

const faults: Step[] = [
  async ({ line }) => line.down(),
  async ({ line }) => line.up(),
  async ({ line }) => line.up(),
  async ({ line }) => line.loseAnswer('push'),
  async ({ line }) => line.loseAnswer('pull'),
  async (client) => await client.restart(),
];

const pk = (random: (below: number) => number) => `p${random(4)}`;

async function run(seed: number, edits: Step[], conflictHandler?: RxConflictHandler<Todo>): Promise<{ workspace: string; clients: RxClient[] }> {
  const random = randomOf(seed);
  const workspace = newName('w');
  const options = { url: world.gateway.url, workspace, pull: { batchSize: 3 }, pollInterval: 100, ...(conflictHandler && { conflictHandler }) };
  const clients = await Promise.all([0, 1, 2].map(() => RxClient.open(options)));
  for (const { line } of clients) line.latency = () => random(3) * random(20);
  const steps = [...edits, ...faults];
  for (let i = 0; i < 60; i++) {
    const at = random(clients.length);
    clients[at] = await steps[random(steps.length)]!(clients[at]!, random) ?? clients[at]!;
  }
  for (const { line } of clients) {
    line.up();
    line.forget();
  }
  await expect.poll(async () => {
    const titles = Object.entries(await world.records(workspace)).map(([id, { title }]) => [id, title]);
    const server = Object.fromEntries(titles) as Record<string, string>;
    return (await Promise.all(clients.map((client) => client.titles()))).map((seen) => JSON.stringify(sorted(seen)) === JSON.stringify(sorted(server)));
  }, { interval: 100 }).toEqual([true, true, true]);
  return { workspace, clients };
}

const sorted = (record: Record<string, string>) => Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));

const seeds = Array.from({ length: Number(process.env.SEEDS ?? 6) }, (_, i) => Number(process.env.SEED ?? 1) + i);

test.each(seeds)('no word that is written is lost, whatever happens (%i)', async (seed) => {
  const written = new Map<string, Set<string>>();
  let count = 0;
  const write: Step = async (client, random) => {
    const id = pk(random);
    const word = `w${++count}`;
    const add = async (): Promise<unknown> => {
      const known = await client.todos.findOne(id).exec();
      if (known) return await known.incrementalModify((doc) => ({ ...doc, title: [...words(doc.title), word].sort().join(' ') }));
      // Another's may arrive at this moment.
      return await client.todos.insert({ id, title: word }).catch((error) => (error.code === 'CONFLICT' ? add() : Promise.reject(error)));
    };
    await add();
    written.set(id, (written.get(id) ?? new Set()).add(word));
  };
  const { workspace } = await run(seed, [write, write, write, write, write], union);
  const records = await world.records(workspace);
  for (const [id, all] of written) expect(words(records[id]!.title as string)).toEqual([...all].sort());
});

test.each(seeds)('all have what the server has in the end (%i)', async (seed) => {
  let count = 0;
  const write: Step = async (client, random) => {
    await client.todos.incrementalUpsert({ id: pk(random), title: `t${++count}` });
  };
  const remove: Step = async (client, random) => {
    const known = await client.todos.findOne(pk(random)).exec();
    await known?.incrementalRemove();
  };
  const purge: Step = async ({ replication }) => {
    await world.purge(replication.replicationIdentifier.split(':').at(-2)!);
  };
  await run(seed, [write, write, write, remove, remove, purge]);
});
