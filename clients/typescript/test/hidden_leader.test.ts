import { expect, test } from 'vitest';
import { type Message, Tabs } from '../src/tabs.ts';

test('a tab without Web Locks, or not yet started, takes nothing over from a hidden leader', async () => {
  let hasLed = false;
  const heard: Message['type'][] = [];
  let hear = () => {};
  const last = new Promise<void>((resolve) => {
    hear = resolve;
  });
  const tabs = new Tabs('hidden', {
    lead: async () => {
      hasLed = true;
    },
    receive: ({ type }) => {
      heard.push(type);
      if (type === 'captured') hear();
    },
    status: () => ({}),
  });
  const leader = new BroadcastChannel('sync_ext:hidden');
  leader.postMessage({ type: 'leader', isVisible: false, status: {} });
  leader.postMessage({ type: 'captured' });
  await last;
  expect(hasLed).toBe(false);
  // Nor its status.
  expect(heard).toEqual(['captured']);
  leader.close();
  tabs.stop();
});
