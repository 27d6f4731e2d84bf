import { defineConfig } from 'vitest/config';
import { PATIENCE, limits } from '../support/patience.ts';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    setupFiles: ['test/setup.ts'],
    ...limits,
    expect: { poll: { timeout: PATIENCE } },
  },
});
