import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';

// The bytes of an entry point and all that is loaded with it, minified and compressed, without the
// packages that it imports; below it, what is loaded later, if at all. With a limit it fails above
// it: node size.mjs src/index.ts 15000
const [entryPoint = 'src/index.ts', limit = Infinity] = process.argv.slice(2);
// As in an app, of which it is a part: what a later part shares with it stays in it.
const options = { external: /^[^./]/, platform: 'browser', preserveEntrySignatures: 'allow-extension' };
const bundle = await rolldown({ input: entryPoint, ...options });
const { output } = await bundle.generate({ minify: true });
const loaded = new Set([output[0].fileName]);
for (const name of loaded) for (const other of output.find(({ fileName }) => fileName === name)?.imports ?? []) loaded.add(other);

let total = 0;
for (const { fileName, code } of output) {
  const { length } = gzipSync(code, { level: 9 });
  if (loaded.has(fileName)) total += length;
  console.log(`${loaded.has(fileName) ? entryPoint : `later, ${fileName}`}: ${code.length} bytes, ${length} compressed`);
}
if (total > Number(limit)) {
  console.error(`${total} bytes, ${limit} are allowed`);
  process.exitCode = 1;
}
