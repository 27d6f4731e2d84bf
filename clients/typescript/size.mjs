import { build } from 'esbuild'; import { gzipSync } from 'node:zlib';
const r = await build({ entryPoints: [process.argv[2] ?? 'src/index.ts'], bundle: true, minify: true, format: 'esm', packages: 'external', write: false, target: 'es2022' });
console.log(r.outputFiles[0].contents.length, gzipSync(r.outputFiles[0].contents, {level: 9}).length);
