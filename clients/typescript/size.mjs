import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

// The bytes of an entry point, minified and compressed, without the packages that it imports. With
// a limit it fails above it: node size.mjs src/index.ts 15000
const [entryPoint = 'src/index.ts', limit = Infinity] = process.argv.slice(2);
const { outputFiles } = await build({
  entryPoints: [entryPoint],
  bundle: true,
  minify: true,
  format: 'esm',
  packages: 'external',
  write: false,
  target: 'es2022',
});
const { contents } = outputFiles[0];
const { length } = gzipSync(contents, { level: 9 });
console.log(contents.length, length);
if (length > Number(limit)) {
  console.error(`${entryPoint} has ${length} bytes, ${limit} are allowed`);
  process.exitCode = 1;
}
