import { describe, expect } from 'vitest';
import type { Tab } from './support/chromium.ts';
import { eventually, hasStatus, lead, put, rows, test } from './support/suite.ts';
import type { World } from './support/world.ts';

/** Records of two lists, and two tabs of ann's that follow the first one. */
async function twoTabs(world: World, workspace: string): Promise<[leader: Tab, other: Tab]> {
  const bob = await world.tab('bob', workspace);
  for (const list of ['a', 'b', 'c']) {
    for (const n of [1, 2, 3]) await put(bob, { id: `${list}${n}`, list });
  }
  await hasStatus(bob, { pending: 0, phase: 'live' });
  const leader = await world.tab('ann', workspace);
  await setScopes(leader, ['a']);
  const other = await world.tab('ann', workspace);
  await lead(leader, other);
  for (const tab of [leader, other]) await shows(tab, ['a']);
  return [leader, other];
}

const setScopes = (tab: Tab, list: string[] | null) => tab.page.evaluate((list) => app.sync.setScopes(list), list);

/** Waits until a tab shows exactly the records of these lists, and says so. */
async function shows(tab: Tab, lists: string[]): Promise<void> {
  await eventually(async () => (await rows(tab)).map(({ id }) => id), lists.flatMap((list) => [1, 2, 3].map((n) => list + n)));
  await hasStatus(tab, { scopes: { followed: lists, wished: lists } });
}

describe('two tabs that follow scopes', () => {
  test('change the list at once: the last wish counts', async ({ world, workspace }) => {
    const [leader, other] = await twoTabs(world, workspace);
    await Promise.all([setScopes(leader, ['b']), setScopes(other, ['a', 'c'])]);
    await setScopes(other, ['b', 'c']);
    for (const tab of [leader, other]) await shows(tab, ['b', 'c']);
    const asked = world.front.requests.filter(({ path, user }) => user === 'ann' && path === '/live').length;
    expect(asked).toBeGreaterThan(1);
    await eventually(() => world.front.streams('ann'), 1);
  });

  for (const end of ['crash', 'close'] as const) {
    test(`go on with another list after the leader is ended by a ${end} in the middle`, async ({ world, workspace }) => {
      const [leader, other] = await twoTabs(world, workspace);
      await leader.page.evaluate(() => app.todos.update('a1', { title: 'edited' }));
      const snapshot = world.front.hold('ann', 'snapshot');
      await setScopes(leader, ['c']);
      await snapshot.answered;
      await leader[end]();
      await shows(other, ['c']);
      snapshot.release();
      await hasStatus(other, { pending: 0, conflicts: 0 });
      expect((await world.records(workspace)).find(({ id }) => id === 'a1')!.title).toBe('edited');
    });
  }

  test('hear of what comes into the list and of what leaves it', async ({ world, workspace }) => {
    const [leader, other] = await twoTabs(world, workspace);
    await setScopes(other, ['a', 'b']);
    for (const tab of [leader, other]) await shows(tab, ['a', 'b']);
    const bob = await world.tab('bob', workspace);
    await bob.page.evaluate(() => app.todos.bulkUpdate(['c1', 'c2', 'c3', 'a1', 'a2', 'a3'].map((key) => (
      { key, changes: { list: key.startsWith('c') ? 'b' : 'c' } }
    ))));
    for (const tab of [leader, other]) {
      await eventually(async () => (await rows(tab)).map(({ id }) => id), ['b1', 'b2', 'b3', 'c1', 'c2', 'c3']);
    }
    await setScopes(leader, null);
    await eventually(async () => (await rows(other)).length, 9);
  });
});
