import { defineConfig } from 'vitest/config';
import { BROWSER_PATIENCE, limits } from '../../support/patience.ts';

export default defineConfig({
  test: {
    include: ['*.browser.ts'],
    // They share the processors with the server and the browsers of the others.
    fileParallelism: false,
    ...limits,
    // A slow page must have time for more than the questions.
    expect: { poll: { timeout: BROWSER_PATIENCE, interval: 100 } },
  },
});
