import { describe, expect } from 'vitest';
import type { Tab } from './support/chromium.ts';
import { eventually, hasStatus, isPushed, put, rows, test } from './support/suite.ts';
import type { World } from './support/world.ts';

/** Has ann's browser remove what it has stored. Resolves when all her tabs have noticed. */
async function clear(world: World, tabs: Tab[]): Promise<void> {
  for (const { page } of tabs) {
    await page.evaluate(() => {
      app.closed = new Promise((resolve) => app.db.on('close', () => resolve()));
    });
  }
  await (await world.browser('ann')).clear(world.front.url);
  for (const { page } of tabs) await page.evaluate(() => app.closed);
}

describe('the storage', () => {
  test('when full refuses writes with the browser\'s error, and goes on when there is room', async ({ world, workspace }) => {
    const ann = await world.tab('ann', workspace, '&manual');
    await ann.limit(200_000);
    await ann.page.evaluate(() => app.sync.start());
    const bob = await world.tab('bob', workspace);
    await put(bob, { id: 'a', title: 'milk' });
    await eventually(() => rows(ann), [{ id: 'a', title: 'milk' }]);

    world.front.cut('ann');
    await hasStatus(ann, { online: false });
    await put(ann, { id: 'b', title: 'bread' });
    const refused = await ann.page.evaluate(() => {
      const todos = [{ id: 'a', title: 'oat milk' }, { id: 'large', title: app.noise(900_000) }];
      return app.todos.bulkPut(todos).then(() => 'stored', ({ inner }) => inner.name);
    });
    expect(refused).toBe('QuotaExceededError');
    expect(await rows(ann)).toEqual([{ id: 'a', title: 'milk' }, { id: 'b', title: 'bread' }]);
    const pending = await ann.page.evaluate(() => app.sync.pending());
    expect(pending.map(({ pk }) => pk)).toEqual(['b']);

    await bob.page.evaluate(() => (
      app.todos.bulkPut(Array.from({ length: 9 }, (_, i) => ({ id: `c${i}`, title: app.noise(50_000) })))
    ));
    await eventually(() => world.head(workspace), 10);
    world.front.mend('ann');
    await hasStatus(ann, { phase: 'storage', error: { code: 'QuotaExceededError', message: expect.any(String) } });
    expect((await rows(ann)).map(({ id }) => id)).toEqual(['a', 'b']);

    await ann.limit();
    await isPushed(ann);
    const all = await world.records(workspace);
    expect(all.map(({ id }) => id)).toEqual(['a', 'b', ...Array.from({ length: 9 }, (_, i) => `c${i}`)]);
    for (const tab of [ann, bob]) await eventually(() => rows(tab), all);
  });

  test('when the browser has removed it under an open page begins anew', async ({ world, workspace }) => {
    await world.fill(workspace, 3);
    const all = await world.records(workspace);
    const ann = await world.tab('ann', workspace);
    await hasStatus(ann, { phase: 'live' });
    await ann.page.evaluate(() => app.watch());
    await eventually(() => rows(ann), all);
    await clear(world, [ann]);
    await eventually(() => world.front.made(workspace, 'pull').length, 2);
    await eventually(() => ann.page.evaluate(() => app.seen.at(-1)!), all);
    await hasStatus(ann, { phase: 'live', error: null });

    await put(ann, { id: 'by ann', title: 'nuts' });
    await isPushed(ann);
    const bob = await world.tab('bob', workspace);
    await eventually(async () => (await rows(bob)).length, 4);
    await put(bob, { id: 'by bob', title: 'eggs' });
    await eventually(async () => (await rows(ann)).length, 5);
    expect(await rows(ann)).toEqual(await world.records(workspace));
  });

  test('when the browser has removed it under two tabs begins anew in both', async ({ world, workspace }) => {
    await world.fill(workspace, 3);
    const tabs = [await world.tab('ann', workspace), await world.tab('ann', workspace)];
    for (const tab of tabs) {
      await hasStatus(tab, { phase: 'live', error: null });
      await tab.page.evaluate(() => app.watch());
      await eventually(() => tab.page.evaluate(() => app.seen.at(-1)?.length), 3);
    }
    await clear(world, tabs);
    for (const [i, tab] of tabs.entries()) {
      await put(tab, { id: `by tab ${i}`, title: 'nuts' });
      await isPushed(tab);
      await eventually(async () => (await world.records(workspace)).length, 4 + i);
    }
    const all = await world.records(workspace);
    for (const tab of tabs) {
      await hasStatus(tab, { phase: 'live', error: null, conflicts: 0 });
      await eventually(() => tab.page.evaluate(() => app.seen.at(-1)!), all);
    }
    await eventually(() => world.front.streams('ann'), 1);
  });

  test('gets the version of a new app, beside which the old one works on', async ({ world, workspace }) => {
    const old = await world.tab('ann', workspace);
    await put(old, { id: 'a', title: 'milk', done: true });
    await isPushed(old);
    // Not all that has the database open makes way by itself.
    await old.page.evaluate(() => new Promise<void>((resolve) => {
      const request = indexedDB.open(app.db.name);
      request.onsuccess = () => {
        addEventListener('makeWay', () => request.result.close());
        resolve();
      };
    }));
    const next = await world.tab('ann', workspace, '&version=2');
    await hasStatus(next, { phase: 'storage', error: { code: 'BLOCKED', message: expect.any(String) } });
    await old.page.evaluate(() => dispatchEvent(new Event('makeWay')));
    await hasStatus(next, { phase: 'live', error: null });

    await put(old, { id: 'b', title: 'bread' });
    await put(next, { id: 'c', title: 'eggs' });
    for (const tab of [old, next]) {
      await isPushed(tab);
      await eventually(async () => (await rows(tab)).map(({ id }) => id), ['a', 'b', 'c']);
    }
    expect(await world.records(workspace)).toEqual(await rows(next));
  });
});
