import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { build } from 'esbuild';

/** A bug: a text in one of the client's files, and another one in its place. */
export interface Bug {
  name: string;
  file: string;
  text: string;
  by: string;
}

/** What runs in each tab: the app with the client, perhaps with bugs. */
export async function programOf(folder: string, bugs: readonly Bug[] = []): Promise<vm.Script> {
  const { outputFiles } = await build({
    entryPoints: [`${folder}/src/page/app.ts`],
    bundle: true,
    format: 'iife',
    target: 'es2023',
    write: false,
    logLevel: 'error',
    plugins: [{
      name: 'bugs',
      setup: ({ onLoad }) => {
        onLoad({ filter: /typescript\/src\/.*\.ts$/ }, async ({ path }) => {
          let contents = await readFile(path, 'utf8');
          for (const bug of bugs.filter(({ file }) => path.endsWith(`/src/${file}`))) {
            const parts = contents.split(bug.text);
            if (parts.length !== 2) throw new Error(`${bug.name}: its text is ${parts.length - 1} times in ${path}`);
            contents = parts.join(bug.by);
          }
          return { contents, loader: 'ts' };
        });
      },
    }],
  });
  return new vm.Script(outputFiles[0]!.text, { filename: fileURLToPath('file:///page.js') });
}
