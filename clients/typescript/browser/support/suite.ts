import { test as base, expect } from 'vitest';
import type { Status } from '../../src/index.ts';
import type { Todo } from './app.ts';
import { hasChromium, type Tab } from './chromium.ts';
import { World } from './world.ts';

/** A test with the world of its file and a workspace of its own. */
export const test = base.extend<{ world: World; workspace: string }>({
  world: [
    async ({}, use) => {
      const world = await World.start();
      await use(world);
      await world.stop();
    },
    { scope: 'file' },
  ],
  workspace: async ({ world }, use) => {
    await use(await world.newWorkspace());
    await world.closeTabs();
    for (const user of ['ann', 'bob']) world.front.mend(user);
  },
}).runIf(hasChromium);

/** Waits until what the function returns, or resolves to, is the value. */
export async function eventually<T>(what: () => T | Promise<T>, value: NoInfer<T>): Promise<void> {
  await expect.poll(what).toEqual(value);
}

/** Waits until the tab's status has these. */
export async function hasStatus(tab: Tab, status: Partial<Status>): Promise<void> {
  await expect.poll(() => tab.page.evaluate(() => app.sync.status.value)).toMatchObject(status);
}

/** Waits until the server has all that was edited here, also what the status has not counted yet. */
export async function isPushed(tab: Tab): Promise<void> {
  await eventually(() => tab.page.evaluate(async () => (await app.sync.pending()).length), 0);
  await hasStatus(tab, { phase: 'live', pending: 0, error: null });
}

/** Lets the first tab lead, in front of the other one. The other one has led before, so that nothing
 * is left of its start that could take over later. */
export async function lead(leader: Tab, other: Tab): Promise<void> {
  await hasStatus(other, { isLeader: true, phase: 'live' });
  await hasStatus(leader, { isLeader: false, phase: 'live' });
  await leader.show();
  await hasStatus(leader, { isLeader: true, phase: 'live' });
  await hasStatus(other, { isLeader: false, phase: 'live' });
}

/** What the app shows, in the order of the keys. */
export async function rows(tab: Tab): Promise<Todo[]> {
  return await tab.page.evaluate(() => app.todos.toArray());
}

export async function put(tab: Tab, todo: Todo): Promise<void> {
  await tab.page.evaluate((todo) => app.todos.put(todo), todo);
}
