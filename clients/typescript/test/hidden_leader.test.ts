import { expect, test } from 'vitest';
import { Tabs } from '../src/tabs.ts';

test('a tab without Web Locks, or not yet started, takes nothing over from a hidden leader', async () => {
  let hasLed = false;
  let hear = () => {};
  const heard = new Promise<void>((resolve) => {
    hear = resolve;
  });
  const tabs = new Tabs('hidden', {
    lead: async () => {
      hasLed = true;
    },
    receive: () => hear(),
    status: () => ({}),
  });
  const leader = new BroadcastChannel('sync_ext:hidden');
  leader.postMessage({ type: 'leader', isVisible: false, status: {} });
  await heard;
  expect(hasLed).toBe(false);
  leader.close();
  tabs.stop();
});
