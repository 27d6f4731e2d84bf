import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { World } from '../support/world.ts';
import { measureLocal } from './local.ts';

const folder = join(dirname(fileURLToPath(import.meta.url)), 'pages');
const pages = Object.fromEntries(['dexie', 'dexie-cloud', 'rxdb'].map((name) => [name, join(folder, `${name}.ts`)]));

const world = await World.start(pages);
try {
  const local = await measureLocal(world, Number(process.argv[2] ?? 5), process.argv.slice(3) as never);
  console.table(Object.fromEntries(local));
} finally {
  await world.stop();
}
