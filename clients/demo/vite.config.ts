import { defineConfig } from 'vite';
import { World } from './server/world.ts';

export default defineConfig(async ({ command }) => {
  if (command === 'build') return {};
  const world = await World.start();
  return {
    plugins: [world.plugin()],
    server: { proxy: world.proxy },
    preview: { proxy: world.proxy },
  };
});
