import type { World } from '../support/world.ts';
import { quantile } from './figures.ts';

/** One user edits, another one's app shows it: milliseconds, in two browsers, by the gateway. */
export async function measureEdits(world: World, edits: number) {
  const workspace = await world.newWorkspace();
  const ann = await world.tab('ann', workspace);
  const bob = await world.tab('bob', workspace);
  for (const { page } of [ann, bob]) await page.waitForFunction(() => app.sync.status.value.phase === 'live');
  await bob.page.evaluate(() => app.watch());
  const times: number[] = [];
  for (let i = 0; i < edits; i++) {
    const begun = await ann.page.evaluate(async (title) => {
      const now = Date.now();
      await app.todos.put({ id: 'a', title });
      return now;
    }, `${i}`);
    await bob.page.waitForFunction((title) => app.seen.at(-1)?.[0]?.title === title, `${i}`, { polling: 50 });
    times.push(await bob.page.evaluate(() => app.seenAt.at(-1)!) - begun);
    // As people do: what follows at once waits for the next round.
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 100));
  }
  await world.closeTabs();
  return { 'median, ms': quantile(times, 0.5), '95 %, ms': quantile(times, 0.95) };
}

/** A tab with nothing to do: the requests that it makes in so many seconds, beside its stream. */
export async function measureIdle(world: World, seconds: number) {
  const workspace = await world.newWorkspace();
  await world.fill(workspace, 100);
  const tab = await world.tab('ann', workspace);
  await tab.page.waitForFunction(() => app.sync.status.value.phase === 'live');
  const before = world.front.requests.length;
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  await tab.close();
  const made = world.front.requests.slice(before).map(({ path }) => path);
  return { seconds, requests: made.length, made: made.join(' ') };
}
