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

/** Writes into local databases, in turn. Returns the medians of the rounds: milliseconds, and how
 * many times as long as Dexie alone in the same round. */
export async function measureLocal(world: World, { rounds, puts, bulk }: { rounds: number; puts: number; bulk: number }) {
  const browser = await world.browser('ann');
  const found: { [name in Contender]?: Local }[] = [];
  for (let round = 0; round < rounds; round++) {
    const locals: { [name in Contender]?: Local } = {};
    for (const [name, path] of Object.entries(CONTENDERS) as [Contender, string][]) {
      const tab = await browser.tab(`${world.front.url}${path}&workspace=${await world.newWorkspace()}`);
      await tab.page.waitForFunction(() => 'measure' in globalThis);
      locals[name] = await tab.page.evaluate(([puts, bulk]) => measure(puts, bulk), [puts, bulk] as const);
      await tab.close();
      await browser.clear(world.front.url);
    }
    found.push(locals);
  }
  const middle = (figure: (locals: (typeof found)[number]) => number) => median(found.map(figure));
  const figuresOf = (name: Contender) => Object.fromEntries((['insert', 'update', 'bulk'] as const).flatMap((kind) => [
    [`${kind}, ms`, Math.round(middle((locals) => locals[name]![kind]))],
    [`${kind}, ratio`, middle((locals) => locals[name]![kind] / locals['Dexie alone']![kind]).toFixed(2)],
  ]));
  return Object.fromEntries((Object.keys(CONTENDERS) as Contender[]).map((name) => [name, figuresOf(name)]));
}
