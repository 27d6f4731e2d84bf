/** The Nuxt module: `or3-provider-sync-ext/nuxt` in the app's list of providers. */
import { fileURLToPath } from 'node:url';

const name = 'or3-provider-sync-ext';

/** What is set of Nuxt's options. A module needs no more of Nuxt than this. */
interface Nuxt {
  options: {
    build: { transpile: unknown[] };
    nitro: { plugins?: string[] };
    plugins: unknown[];
    runtimeConfig: { public: Record<string, unknown> };
  };
}

export default function module(_options: unknown, { options }: Nuxt): void {
  // The plugins import modules of the app, so its build has to resolve them.
  options.build.transpile.push(name);
  (options.nitro.plugins ??= []).push(pathOf('server'));
  options.plugins.push({ src: pathOf('client'), mode: 'client' });
  options.runtimeConfig.public.syncExt ??= {
    directUrl: process.env.OR3_SYNC_EXT_DIRECT_URL ?? '',
    tokenTemplate: process.env.OR3_SYNC_EXT_TOKEN_TEMPLATE ?? '',
  };
}

module.getMeta = async () => ({ name });

function pathOf(plugin: 'server' | 'client'): string {
  return fileURLToPath(new URL(`./${plugin}.js`, import.meta.url));
}
