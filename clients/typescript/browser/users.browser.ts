import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { hasChromium } from './support/chromium.ts';
import { eventually } from './support/eventually.ts';
import { World } from './support/world.ts';

describe.runIf(hasChromium)('users', () => {
  let world: World;
  beforeAll(async () => {
    world = await World.start();
  });
  afterAll(() => world?.stop());
  afterEach(() => world.closeTabs());

  test('see each other edit', async () => {
    const workspace = await world.newWorkspace();
    const ann = await world.tab('ann', workspace);
    const bob = await world.tab('bob', workspace);
    await ann.page.evaluate(() => app.todos.put({ id: 'a', title: 'milk' }));
    await eventually(() => bob.page.evaluate(() => app.todos.toArray()), [{ id: 'a', title: 'milk' }]);
    await bob.page.evaluate(() => app.todos.update('a', { done: true }));
    await eventually(() => ann.page.evaluate(() => app.todos.toArray()), [{ id: 'a', title: 'milk', done: true }]);
    expect(await world.records(workspace)).toEqual({ a: 'milk' });
  });
});
