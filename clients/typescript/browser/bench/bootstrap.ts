import type { World } from '../support/world.ts';
import { median } from './figures.ts';
import type { Begun } from './pages/bootstrap.ts';

export interface Bootstrap {
  perSecond: number;
  /** The longest time that the page was blocked, and how often 50 ms or more. */
  longest: number;
  often: number;
}

/** New devices begin, by pulls or by a snapshot. Returns the medians of the rounds; of the longest
 * block, the worst. */
export async function measureBootstrap(world: World, records: number, rounds: number, bySnapshot: boolean): Promise<Bootstrap> {
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
  return {
    perSecond: records / (median(begun.map(({ took }) => took)) / 1000),
    longest: Math.max(0, ...begun.flatMap(({ blocked }) => blocked)),
    often: median(begun.map(({ blocked }) => blocked.length)),
  };
}
