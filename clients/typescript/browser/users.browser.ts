import { describe, expect } from 'vitest';
import type { Tab } from './support/chromium.ts';
import { eventually, hasStatus, isPushed, put, rows, test } from './support/suite.ts';

describe('users', () => {
  test('see each other edit', async ({ world, workspace }) => {
    const ann = await world.tab('ann', workspace);
    const bob = await world.tab('bob', workspace);
    await put(ann, { id: 'a', title: 'milk' });
    await eventually(() => rows(bob), [{ id: 'a', title: 'milk' }]);
    await bob.page.evaluate(() => app.todos.update('a', { done: true }));
    const both = [{ id: 'a', title: 'milk', done: true }];
    await eventually(() => rows(ann), both);
    await isPushed(bob);
    expect(await world.records(workspace)).toEqual(both);
  });

  test('with two tabs each edit without a network, and meet', async ({ world, workspace }) => {
    const ann = [await world.tab('ann', workspace), await world.tab('ann', workspace)] as const;
    const bob = [await world.tab('bob', workspace), await world.tab('bob', workspace)] as const;
    const tabs: Tab[] = [...ann, ...bob];
    await put(ann[0], { id: 'a', title: 'milk', done: false });
    await put(ann[1], { id: 'b', title: 'bread', done: false });
    for (const tab of tabs) await eventually(async () => (await rows(tab)).length, 2);

    for (const user of ['ann', 'bob']) world.front.cut(user);
    for (const tab of tabs) await hasStatus(tab, { online: false });
    await ann[0].page.evaluate(() => app.todos.update('a', { title: 'oat milk' }));
    await put(ann[1], { id: 'by ann', title: 'apples' });
    await bob[0].page.evaluate(() => app.todos.delete('b'));
    await bob[1].page.evaluate(() => app.todos.update('a', { done: true }));
    await put(bob[1], { id: 'by bob', title: 'nuts' });
    for (const tab of ann) await hasStatus(tab, { pending: 2 });
    for (const tab of bob) await hasStatus(tab, { pending: 3 });
    expect((await world.records(workspace)).map(({ title }) => title)).toEqual(['milk', 'bread']);

    for (const user of ['ann', 'bob']) world.front.mend(user);
    const all = [
      { id: 'a', title: 'oat milk', done: true },
      { id: 'by ann', title: 'apples' },
      { id: 'by bob', title: 'nuts' },
    ];
    for (const tab of tabs) {
      await eventually(() => rows(tab), all);
      await isPushed(tab);
      await hasStatus(tab, { online: true, conflicts: 0 });
    }
    expect(await world.records(workspace)).toEqual(all);
    expect(await world.head(workspace)).toBe(7);
  });
});
