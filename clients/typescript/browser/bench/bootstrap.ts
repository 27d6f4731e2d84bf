import type { World } from '../support/world.ts';
import { median } from './figures.ts';
import type { Begun } from './pages/bootstrap.ts';

/** New devices begin with records of 0.5 KB, by pulls or by a snapshot. Returns the medians of the
 * rounds; of the longest block, the worst. */
export async function measureBootstrap(world: World, records: number, rounds: number, bySnapshot: boolean) {
  const workspace = await world.newWorkspace();
  await world.fill(workspace, records, 500);
  if (bySnapshot) await world.purge(workspace);
  const browser = await world.browser('ann');
  const begun: Begun[] = [];
  for (let round = 0; round < rounds; round++) {
    const tab = await browser.tab(`${world.front.url}/bootstrap?workspace=${workspace}`);
    await tab.page.waitForFunction(() => 'begin' in globalThis);
    const one = await tab.page.evaluate(() => begin());
    if (one.records < records) throw new Error(`${one.records} records are there`);
    begun.push(one);
    await tab.close();
    await browser.clear(world.front.url);
  }
  const way = bySnapshot ? 'snapshot' : 'pull';
  if (world.front.made(workspace, way).length < rounds * records / 1000) throw new Error(`not by ${way}`);
  return {
    'records/s': Math.round(records / (median(begun.map(({ took }) => took)) / 1000)),
    'longest task, ms': Math.max(0, ...begun.flatMap(({ blocked }) => blocked)),
    'tasks above 50 ms': median(begun.map(({ blocked }) => blocked.length)),
  };
}
