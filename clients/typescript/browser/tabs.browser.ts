import { describe, expect } from 'vitest';
import type { Tab } from './support/chromium.ts';
import { eventually, hasStatus, isPushed, lead, put, rows, test } from './support/suite.ts';
import type { World } from './support/world.ts';

/** Two tabs of ann's, the first one in front and the leader. */
async function twoTabs(world: World, workspace: string): Promise<[leader: Tab, other: Tab]> {
  const leader = await world.tab('ann', workspace);
  const other = await world.tab('ann', workspace);
  await lead(leader, other);
  await eventually(() => world.front.streams('ann'), 1);
  return [leader, other];
}

describe('of two tabs', () => {
  test('one talks to the server, by one stream for all workspaces', async ({ world, workspace }) => {
    const second = await world.newWorkspace();
    const tabs = await twoTabs(world, workspace);
    for (const tab of tabs) {
      await tab.page.evaluate((workspace) => app.open(workspace, { workspace }).sync.start(), second);
      // The other one is hidden, and hears nothing but what it asks for.
      await eventually(() => tab.page.evaluate((name) => app.stores[name]!.sync.status.value.phase, second), 'live');
    }
    const bob = await world.tab('bob', workspace);
    await bob.page.evaluate((workspace) => app.open(workspace, { workspace }).sync.start(), second);
    await put(bob, { id: 'a', title: 'milk' });
    await bob.page.evaluate((name) => app.stores[name]!.todos.put({ id: 'b', title: 'bread' }), second);
    for (const tab of tabs) {
      await eventually(() => rows(tab), [{ id: 'a', title: 'milk' }]);
      await eventually(() => tab.page.evaluate((name) => app.stores[name]!.todos.toArray(), second), [{ id: 'b', title: 'bread' }]);
    }
    await eventually(() => world.front.streams('ann'), 1);
    await hasStatus(tabs[0], { isLeader: true });
  });

  test('none asks for anything while nothing happens', async ({ world, workspace }) => {
    await world.fill(workspace, 10);
    await world.tab('ann', workspace);
    await eventually(() => world.front.streams('ann'), 1);
    await twoTabs(world, workspace);
    const stream = world.front.requests.findLast(({ path }) => path === '/live')!;
    const [requests, pieces] = [world.front.requests.length, stream.pieces];
    // The gateway sends a sign of life every two seconds.
    await eventually(() => stream.pieces >= pieces + 3, true);
    expect(world.front.requests.slice(requests)).toEqual([]);
    expect(world.front.streams('ann')).toBe(1);
  });

  for (const end of ['crash', 'close'] as const) {
    test(`the other one takes over when the leader is ended by a ${end}`, async ({ world, workspace }) => {
      const [leader, other] = await twoTabs(world, workspace);
      const push = world.front.hold('ann', 'push');
      await put(leader, { id: 'a', title: 'milk' });
      // The server has it, and nobody here knows.
      await push.answered;
      await put(leader, { id: 'b', title: 'bread' });
      await put(other, { id: 'c', title: 'eggs' });
      await hasStatus(other, { isLeader: false, pending: 3 });
      await leader[end]();
      await isPushed(other);
      await hasStatus(other, { isLeader: true, conflicts: 0 });
      expect(await world.records(workspace)).toEqual(await rows(other));
      expect(await world.head(workspace)).toBe(3);
      push.release();
    });
  }

  test('the one in front takes over from a frozen leader, whose late answer changes nothing', async ({ world, workspace }) => {
    const [leader, other] = await twoTabs(world, workspace);
    const push = world.front.hold('ann', 'push');
    await put(leader, { id: 'a', title: 'milk' });
    await push.answered;
    // It has counted: in a transaction it would stop the other one too.
    await hasStatus(leader, { pending: 1 });
    await leader.freeze();
    await other.show();
    await put(other, { id: 'b', title: 'bread' });
    await hasStatus(other, { isLeader: true });
    await isPushed(other);
    expect((await world.records(workspace)).map(({ id }) => id)).toEqual(['a', 'b']);
    push.release();
    await leader.thaw();
    await leader.show();
    await hasStatus(leader, { isLeader: true, phase: 'live', pending: 0, conflicts: 0 });
    await hasStatus(other, { isLeader: false });
    await put(other, { id: 'c', title: 'eggs' });
    await isPushed(other);
    expect(await world.records(workspace)).toEqual(await rows(leader));
    expect(await world.head(workspace)).toBe(3);
    await eventually(() => world.front.streams('ann'), 1);
  });

  test('one leads, however often the other one is shown', async ({ world, workspace }) => {
    const tabs = await twoTabs(world, workspace);
    for (let i = 1; i <= 10; i++) {
      await tabs[i % 2]!.show();
      await put(tabs[i % 2]!, { id: `${i}` });
    }
    for (const tab of tabs) await isPushed(tab);
    await hasStatus(tabs[0], { isLeader: true });
    await hasStatus(tabs[1], { isLeader: false });
    await eventually(() => world.front.streams('ann'), 1);
    expect(await world.head(workspace)).toBe(10);
  });
});
