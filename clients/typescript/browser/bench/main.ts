import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { World } from '../support/world.ts';
import { measureBootstrap } from './bootstrap.ts';
import { measureEdits, measureIdle } from './live.ts';
import { measureLocal } from './local.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    puts: { type: 'string', default: '1000' },
    bulk: { type: 'string', default: '10000' },
    records: { type: 'string', default: '100000' },
    beginnings: { type: 'string', default: '3' },
    edits: { type: 'string', default: '100' },
    idle: { type: 'string', default: '60' },
  },
});
const { rounds, puts, bulk, records, beginnings, edits, idle } = Object.fromEntries(
  Object.entries(values).map(([name, value]) => [name, Number(value)]),
) as { [name in keyof typeof values]: number };

const folder = join(dirname(fileURLToPath(import.meta.url)), 'pages');
const names = ['dexie', 'dexie-cloud', 'rxdb', 'bootstrap'];
const world = await World.start(Object.fromEntries(names.map((name) => [name, join(folder, `${name}.ts`)])));
try {
  console.log(`local: ${puts} puts one by one, then one bulkPut of ${bulk}; ${rounds} rounds`);
  console.table(await measureLocal(world, { rounds, puts, bulk }));
  console.log(`a new device with ${records} records of 0.5 KB; ${beginnings} rounds`);
  console.table({
    pull: await measureBootstrap(world, records, beginnings, false),
    snapshot: await measureBootstrap(world, records, beginnings, true),
  });
  console.log(`from an edit to another browser, ${edits} edits`);
  console.table([await measureEdits(world, edits)]);
  console.log('an idle tab');
  console.table([await measureIdle(world, idle)]);
} finally {
  await world.stop();
}
