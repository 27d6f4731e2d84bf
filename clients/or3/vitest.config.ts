import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { PATIENCE, limits } from '../support/patience.ts';

const host = (name: string) => fileURLToPath(new URL(`./test/host/${name}.ts`, import.meta.url));

export default defineConfig({
  resolve: {
    // In place of the app's modules.
    alias: {
      '#imports': host('imports'),
      '~~/server/auth/store/registry': host('registries'),
      '~~/server/sync/gateway/registry': host('registries'),
      '~/core/sync/sync-provider-registry': host('registries'),
      '~/core/sync/hlc': host('imports'),
      '~/composables/auth/useAuthTokenBroker.client': host('imports'),
    },
  },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/shared_cluster.ts',
    ...limits,
    expect: { poll: { timeout: PATIENCE } },
    // The machine may have two cores only.
    maxWorkers: 2,
  },
});
