import { readFile, rm, writeFile } from 'node:fs/promises';

const written: URL[] = [];

export async function removeExamples(): Promise<void> {
  await Promise.all(written.splice(0).map((file) => rm(file, { force: true })));
}

/** Runs an example of a document in docs/, which may import the one before it as `./app`. */
export async function runExample(document: string, number: number, url: string): Promise<any> {
  const text = await readFile(new URL(`../../../../../docs/${document}`, import.meta.url), 'utf8');
  const blocks = [...text.matchAll(/```ts\n(.*?)```/gs)].map(([, block]) => block!);
  const name = (i: number) => `example-${process.pid}-${document.replace(/\W/g, '-')}-${i}.ts`;
  const file = new URL(name(number), import.meta.url);
  const code = blocks[number]!
    .replace(/'sync-ext\/([\w-]+)'/g, "'../../../src/$1.ts'")
    .replace("'sync-ext'", "'../../../src/index.ts'")
    .replace("'./app'", `'./${name(number - 1)}'`)
    .replace("url: '/sync'", `url: '${url}'`)
    .replace(/localStorage\.getItem\('token'\)/g, "'token'");
  written.push(file);
  await writeFile(file, code);
  return await import(/* @vite-ignore */ file.pathname);
}
