import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';

// The bytes of an entry point, minified and compressed, without the packages that it imports. With
// a limit it fails above it: node size.mjs src/index.ts 15000
const [entryPoint = 'src/index.ts', limit = Infinity] = process.argv.slice(2);
const bundle = await rolldown({ input: entryPoint, external: /^[^./]/, platform: 'browser' });
const { output: [{ code }] } = await bundle.generate({ minify: true });
const { length } = gzipSync(code, { level: 9 });
console.log(`${entryPoint}: ${code.length} bytes, ${length} compressed`);
if (length > Number(limit)) {
  console.error(`${limit} are allowed`);
  process.exitCode = 1;
}
