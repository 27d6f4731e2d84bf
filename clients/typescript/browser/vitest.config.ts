import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['*.browser.ts'],
    // They share the processors with the server and the browsers of the others.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
