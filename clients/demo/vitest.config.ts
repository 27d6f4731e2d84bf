import { defineConfig } from 'vitest/config';
import { BROWSER_PATIENCE, limits } from '../support/patience.ts';

export default defineConfig({
  test: { ...limits, expect: { poll: { timeout: BROWSER_PATIENCE } }, bail: 1 },
});
