import { describe, expect } from 'vitest';
import type { Status } from '../src/index.ts';
import type { Tab } from './support/chromium.ts';
import { eventually, hasStatus, isPushed, rows, test } from './support/suite.ts';
import type { World } from './support/world.ts';

/** The app of a new device, not started yet. */
async function newDevice(world: World, workspace: string): Promise<Tab> {
  return await world.tab('ann', workspace, '&manual');
}

async function start(tab: Tab): Promise<void> {
  await tab.page.evaluate(() => app.sync.start());
}

/** The ways in which progress was told, in turn. */
async function progressOf(tab: Tab): Promise<NonNullable<Status['progress']>[]> {
  const statuses = await tab.page.evaluate(() => app.statuses);
  return statuses.map(({ progress }) => progress).filter((progress) => progress !== null);
}

function tokenOf(body: string): string | null {
  return (JSON.parse(body) as { pageToken: string | null }).pageToken;
}

function isSorted(values: number[]): boolean {
  return values.every((value, i) => i === 0 || values[i - 1]! <= value);
}

describe('a new device', () => {
  for (const way of ['pull', 'snapshot'] as const) {
    test(`begins with 10,000 records by ${way}, and tells how far it is`, async ({ world, workspace }) => {
      await world.fill(workspace, 10_000, 200);
      if (way === 'snapshot') await world.purge(workspace);
      const tab = await newDevice(world, workspace);
      await start(tab);
      await hasStatus(tab, { phase: 'live', progress: null, pending: 0 });
      const all = await world.records(workspace);
      expect(await rows(tab)).toEqual(all);
      expect(world.front.made(workspace, way)).toHaveLength(way === 'pull' ? 10 : 11);

      const progress = await progressOf(tab);
      expect(isSorted(progress.map(({ records }) => records))).toBe(true);
      const shares = progress.map(({ share }) => share).filter((share) => share !== null);
      expect(isSorted(shares)).toBe(true);
      expect(new Set(shares).size).toBeGreaterThanOrEqual(10);
      expect(progress.at(-1)).toEqual({ records: all.length, share: 1 });
    });
  }

  test('goes on with a snapshot after a reload, and shows nothing of it but all', async ({ world, workspace }) => {
    await world.fill(workspace, 2500);
    await world.purge(workspace);
    const all = await world.records(workspace);
    const own = [{ id: '000001', title: 'milk' }, { id: 'mine', title: 'bread' }];
    const tab = await newDevice(world, workspace);
    const second = world.front.hold('ann', 'snapshot', ({ body }) => tokenOf(body) !== null);
    await start(tab);
    const { body } = await second.answered;
    await tab.page.evaluate((own) => app.todos.bulkPut(own), own);
    expect(await rows(tab)).toEqual(own);

    const third = world.front.hold('ann', 'snapshot', (made) => tokenOf(made.body) !== tokenOf(body));
    await tab.page.reload();
    await tab.page.evaluate(() => app.watch());
    await start(tab);
    await third.answered;
    expect(world.front.made(workspace, 'snapshot').map(({ body }) => tokenOf(body)).slice(0, 3))
      .toEqual([null, tokenOf(body), tokenOf(body)]);
    expect(await rows(tab)).toEqual(own);
    third.release();
    await isPushed(tab);
    await hasStatus(tab, { conflicts: 0 });
    const merged = [own[0], ...all.slice(1), own[1]];
    expect(await world.records(workspace)).toEqual(merged);
    await eventually(() => tab.page.evaluate(() => app.seen.at(-1)!), merged);
    const seen = await tab.page.evaluate(() => app.seen);
    for (const one of seen) expect([own, merged]).toContainEqual(one);
  });
});
