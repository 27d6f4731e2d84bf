// @vitest-environment happy-dom
import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test } from 'vitest';
import { type SyncStatusElement } from '../src/element.ts';
import { type Sync, syncTables } from '../src/index.ts';
import { Observable } from '../src/observable.ts';
import { scripted } from './support/scripted.ts';

// Not defined yet: an app may be faster than the element's code.
const early = document.createElement('sync-status') as SyncStatusElement;
early.sync = statusOnly({ phase: 'polling' });
document.body.append(early);
await import('../src/element.ts');

const running: Sync[] = [];

afterEach(() => {
  for (const sync of running.splice(0)) sync.stop();
  document.body.replaceChildren();
});

/** A sync of which only the status counts. */
function statusOnly(status: Partial<Sync['status']['value']>): Sync {
  const whole = { phase: 'live', online: true, pending: 0, conflicts: 0, progress: null, ...status };
  return { status: new Observable(whole) } as unknown as Sync;
}

function element(sync: Sync): SyncStatusElement {
  const made = document.createElement('sync-status');
  made.sync = sync;
  document.body.append(made);
  return made;
}

function texts({ shadowRoot }: SyncStatusElement): string[] {
  return [...shadowRoot!.querySelectorAll('span')].map((span) => span.textContent!).filter(Boolean);
}

test('shows the sync that was set before the element was defined', () => {
  expect(Object.hasOwn(early, 'sync')).toBe(false);
  document.body.append(early);
  expect(texts(early)).toEqual(['Up to date']);
});

test('follows a sync from its start to offline edits and back', async () => {
  const db = new Dexie('app');
  db.version(1).stores({ todos: 'id' });
  const server = scripted(({ pk }) => (pk === 'bad' ? { errorCode: 'REJECTED', error: 'not that' } : undefined));
  let isOnline = true;
  const fetch: typeof globalThis.fetch = async (input, init) => {
    if (!isOnline) throw new TypeError('offline');
    return await server(input, init);
  };
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], fetch, live: false });
  const shown = element(sync);
  expect(texts(shown)).toEqual(['Not syncing']);
  await sync.start();
  running.push(sync);
  await expect.poll(() => texts(shown)).toEqual(['Up to date']);
  expect(shown.getAttribute('phase')).toBe('polling');
  isOnline = false;
  await db.table('todos').bulkPut([{ id: 'a' }, { id: 'bad' }]);
  await expect.poll(() => texts(shown)).toEqual(['Offline', '2 pending']);
  expect(shown.getAttribute('phase')).toBe('waiting');
  isOnline = true;
  sync.retry();
  await expect.poll(() => texts(shown)).toEqual(['Up to date', '1 conflict']);
});

test.each([
  [{ phase: 'live', pending: 1 }, ['Saving', '1 pending']],
  [{ phase: 'waiting', online: true }, ['Waiting for the server']],
  [{ phase: 'unauthorized', pending: 2 }, ['Sign in again', '2 pending']],
  [{ phase: 'refused' }, ['Refused by the server']],
  [{ phase: 'storage' }, ['Storage fails']],
  [{ phase: 'syncing', progress: { records: 500, share: null } }, ['Loading 500']],
  [{ phase: 'syncing', progress: { records: 500, share: 0.509 } }, ['Loading 50 %']],
  [{ phase: 'live', conflicts: 2 }, ['Up to date', '2 conflicts']],
] as const)('says %o as %o', (status, expected) => {
  expect(texts(element(statusOnly(status)))).toEqual(expected);
});

test('has a bar while records arrive', () => {
  const shown = element(statusOnly({ phase: 'syncing', progress: { records: 5, share: null } }));
  const bar = shown.shadowRoot!.querySelector('progress')!;
  expect(bar.hidden).toBe(false);
  expect(bar.hasAttribute('value')).toBe(false);
  shown.sync = statusOnly({ phase: 'syncing', progress: { records: 5, share: 0.5 } });
  expect(bar.value).toBe(0.5);
  shown.sync = statusOnly({});
  expect(bar.hidden).toBe(true);
});

test('says it in other words, where the app has some', () => {
  const shown = element(statusOnly({ phase: 'live', pending: 3 }));
  shown.texts = { phase: () => 'Aktuell', pending: (count) => `${count} offen` };
  expect(texts(shown)).toEqual(['Aktuell', '3 offen']);
});

test('announces a text by its role only when it is another one', () => {
  const sync = statusOnly({});
  const shown = element(sync);
  const [text] = shown.shadowRoot!.querySelectorAll('span');
  const before = text!.firstChild;
  expect(text!.getAttribute('role')).toBe('status');
  sync.status.set({ ...sync.status.value, lastSynced: 1 });
  expect(text!.firstChild).toBe(before);
});

test('listens only while it is in the page', () => {
  const sync = statusOnly({});
  const shown = element(sync);
  shown.remove();
  sync.status.set({ ...sync.status.value, phase: 'refused' });
  expect(texts(shown)).toEqual(['Up to date']);
  document.body.append(shown);
  expect(texts(shown)).toEqual(['Refused by the server']);
});
