import { afterEach, expect, test, vi } from 'vitest';
import { type Message, Tabs } from '../src/tabs.ts';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test('a tab that was hidden since it asked for the leader takes nothing over', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] });
  const page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const request = vi.fn((_name: string, _options: LockOptions) => new Promise(() => {}));
  vi.stubGlobal('document', page);
  vi.stubGlobal('navigator', { locks: { request } });
  const tabs = new Tabs('slow', { lead: async () => {}, receive: () => {}, status: () => ({}) });
  tabs.start();
  page.visibilityState = 'hidden';
  page.dispatchEvent(new Event('visibilitychange'));
  vi.advanceTimersByTime(4000);
  const steals = () => request.mock.calls.filter(([, { steal }]) => steal).length;
  expect(steals()).toBe(0);
  page.visibilityState = 'visible';
  page.dispatchEvent(new Event('visibilitychange'));
  vi.advanceTimersByTime(4000);
  expect(steals()).toBe(1);
  tabs.stop();
});

test('a tab whose lead was stolen asks how it goes', async () => {
  let steal = () => {};
  let end = () => {};
  let isFirst = true;
  const request = async (_name: string, _options: LockOptions, lead: () => Promise<void>) => {
    if (!isFirst) return await new Promise(() => {});
    isFirst = false;
    void lead();
    await new Promise<void>((_, reject) => {
      steal = () => reject(new DOMException('stolen', 'AbortError'));
    });
  };
  vi.stubGlobal('navigator', { locks: { request } });
  const asked = vi.fn();
  const next = new BroadcastChannel('sync_ext:stolen');
  const tabs = new Tabs('stolen', {
    lead: () => new Promise<void>((resolve) => {
      end = resolve;
    }),
    receive: () => {},
    status: () => ({}),
  });
  tabs.start();
  await expect.poll(() => tabs.isLeader).toBe(true);
  next.onmessage = ({ data }) => data.type === 'who' && asked();
  steal();
  await expect.poll(() => tabs.isLeader).toBe(false);
  asked.mockClear();
  end();
  await expect.poll(() => asked.mock.calls.length).toBe(1);
  next.close();
  tabs.stop();
});

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
