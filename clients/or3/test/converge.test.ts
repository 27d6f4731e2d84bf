import { afterAll, beforeAll, expect, test } from 'vitest';
import { Or3Client, type Round, type Transport } from './support/client.ts';
import { requirePullContract } from './support/contract.ts';
import { eventOf, World } from './support/world.ts';

/** SEED=7 repeats one history; SEEDS=100 runs more of them. */
const first = Number(process.env.SEED ?? 1);
const seeds = Array.from(
  { length: Number(process.env.SEEDS ?? (process.env.SEED ? 1 : 8)) },
  (_, i) => first + i,
);

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

/** mulberry32 */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function transportOf(userId: string): Transport {
  const event = eventOf(userId);
  return {
    push: (batch) => world.adapter.push(event, batch),
    pull: async (request) => requirePullContract(request, await world.adapter.pull(event, request)),
    updateCursor: (scope, deviceId, version) =>
      world.adapter.updateCursor(event, { scope, deviceId, version }),
  };
}

test.each(seeds)('devices of both generations converge: seed %i', async (seed) => {
  const random = randomFrom(seed);
  const below = (n: number) => Math.floor(random() * n);
  const chance = (probability: number) => random() < probability;
  const uuid = () =>
    '00000000-0000-4000-8000-000000000000'.replace(/0/g, () => below(16).toString(16));

  const { owner, workspaceId } = await world.workspace();
  const editor = await world.member(workspaceId, 'editor');
  let time = 1_767_225_600_000;
  const deviceOf = (userId: string, deviceId: string, generation: 'older' | 'newer') =>
    new Or3Client({
      generation,
      deviceId,
      scope: { workspaceId },
      transport: transportOf(userId),
      uuid,
      // Wall clocks differ, also backwards.
      now: () => (time += 1 + below(3)) + (deviceId === 'tablet' ? -500 : 0),
    });
  const phone = deviceOf(owner, 'phone', 'newer');
  const tablet = deviceOf(editor, 'tablet', 'newer');
  const laptop = deviceOf(editor, 'laptop', 'older');
  // It reads now and then, and never acknowledges.
  const shelf = deviceOf(owner, 'shelf', 'newer');
  const devices = [phone, tablet, laptop];

  let [edits, made, lost] = [0, 0, 0];
  const edit = (device: Or3Client) => {
    edits++;
    const live = device.live();
    const payload = { n: edits, by: devices.indexOf(device) };
    const table = ['threads', 'messages'][below(2)]!;
    if (device !== laptop && chance(0.15)) {
      // A key that every device may make for itself, and make again after a delete.
      device.edit(table, `shared-${below(3)}`, payload);
    } else if (live.length === 0 || chance(0.25)) {
      device.edit(table, `own-${++made}`, payload);
    } else {
      const [tableName, pk] = live[below(live.length)]!.split('/') as [string, string];
      // The older client forgets what it deleted, and begins at clock 1 again.
      const isDelete = device !== laptop && chance(0.3);
      device.edit(tableName, pk, isDelete ? null : payload);
    }
  };
  const round = (): Round => {
    const [pushReplyIsLost, pullReplyIsLost] = [chance(0.25), chance(0.1)];
    lost += Number(pushReplyIsLost) + Number(pullReplyIsLost);
    return { limit: 1 + below(4), pushReplyIsLost, pullReplyIsLost };
  };

  for (let step = 0; step < 150; step++) {
    const device = devices[below(devices.length)]!;
    const what = random();
    if (what < 0.5) for (let n = below(4); n >= 0; n--) edit(device);
    else if (what < 0.75) await device.sync(round());
    else if (what < 0.87) {
      // At the same time.
      const rounds = devices.map(() => round());
      await Promise.all(devices.map((each, i) => each.sync(rounds[i]!)));
    } else if (what < 0.93) await world.purge(workspaceId);
    else if (what < 0.95) await shelf.sync({ limit: 1 + below(4), isSilent: true });
  }

  const quiet: Round = { limit: 3 };
  for (let n = 0; n < 2; n++) for (const device of devices) await device.sync(quiet);
  await world.purge(workspaceId);
  const fresh = deviceOf(editor, 'fresh', 'newer');
  const freshOlder = deviceOf(owner, 'fresh-older', 'older');
  for (const device of [shelf, fresh, freshOlder]) await device.sync(quiet);

  const truth = await world.records(workspaceId);
  expect(edits).toBeGreaterThan(60);
  expect(lost).toBeGreaterThan(5);
  for (const device of [...devices, shelf, fresh, freshOlder]) {
    expect(device.outbox).toEqual([]);
    expect(new Map([...device.state()].sort())).toEqual(new Map([...truth].sort()));
  }
});
