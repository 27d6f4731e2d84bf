// Bundles the proof for Node and runs it.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const folder = dirname(fileURLToPath(import.meta.url));
const outfile = join(folder, 'dist', 'proof.mjs');
await build({
  entryPoints: [join(folder, 'src', 'main.ts')],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  packages: 'external',
  sourcemap: 'inline',
  logLevel: 'error',
});
const { status } = spawnSync(process.execPath, [
  '--enable-source-maps',
  // Pages come and go.
  '--max-semi-space-size=64',
  outfile, ...process.argv.slice(2),
], { stdio: 'inherit' });
process.exit(status ?? 1);
