import type { World } from '../support/world.ts';
import { median } from './figures.ts';
import type { Local } from './pages/contender.ts';

const CONTENDERS = {
  'Dexie alone': '/dexie?mode=alone',
  'synced, not started': '/dexie?mode=captured',
  'synced and live': '/dexie?mode=live',
  'dexie-cloud-addon, offline': '/dexie-cloud?',
  'RxDB on Dexie': '/rxdb?',
};
export type Contender = keyof typeof CONTENDERS;

/** Writes into local databases, in turn. Returns the medians of the rounds. */
export async function measureLocal(world: World, rounds: number, only?: Contender[]): Promise<Map<Contender, Local>> {
  const browser = await world.browser('ann');
  const found = new Map<Contender, Local[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, path] of Object.entries(CONTENDERS) as [Contender, string][]) {
      if (only?.length && !only.includes(name)) continue;
      const tab = await browser.tab(`${world.front.url}${path}&workspace=${await world.newWorkspace()}`);
      await tab.page.waitForFunction(() => 'measure' in globalThis);
      const local = await tab.page.evaluate(() => measure(1000, 10_000));
      await tab.close();
      found.set(name, [...found.get(name) ?? [], local]);
      await browser.clear(world.front.url);
    }
  }
  const middle = (locals: Local[]): Local => ({
    insert: median(locals.map(({ insert }) => insert)),
    update: median(locals.map(({ update }) => update)),
    bulk: median(locals.map(({ bulk }) => bulk)),
  });
  return new Map([...found].map(([name, locals]) => [name, middle(locals)]));
}
