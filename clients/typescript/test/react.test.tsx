// @vitest-environment happy-dom
import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, expect, test } from 'vitest';
import { type Sync, syncTables } from '../src/index.ts';
import { useConflicts, useSyncStatus } from '../src/react.ts';
import { scripted } from './support/scripted.ts';

const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
});

function App({ sync }: { sync: Sync }) {
  const { phase, pending } = useSyncStatus(sync);
  const conflicts = useConflicts(sync);
  return (
    <main>
      <p>{`${phase} ${pending}`}</p>
      <ul>
        {conflicts.map(({ id, kind, mine, keepTheirs }) => (
          <li key={id}>
            <button onClick={() => void keepTheirs()}>{`${kind} ${String(mine?.title)}`}</button>
          </li>
        ))}
      </ul>
    </main>
  );
}

function tab(name: string) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const fetch = scripted(({ payload }) => (
    payload?.title === 'bad' ? { errorCode: 'REJECTED', error: 'not that' } : undefined
  ));
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], fetch, live: false });
  ends.push(() => sync.stop());
  return { db, sync };
}

function render(sync: Sync) {
  const container = document.createElement('div');
  const root = createRoot(container);
  root.render(<StrictMode><App sync={sync} /></StrictMode>);
  ends.push(() => root.unmount());
  const texts = (selector: string) => [...container.querySelectorAll(selector)].map(({ textContent }) => textContent);
  return { container, texts, root };
}

test('components follow the status and the conflicts, of another tab too', async () => {
  const [one, two] = [tab('app'), tab('app')];
  const [first, second] = [render(one.sync), render(two.sync)];
  await expect.poll(() => first.texts('p')).toEqual(['stopped 0']);
  await one.sync.start();
  await two.sync.start();
  await expect.poll(() => first.texts('p')).toEqual(['polling 0']);
  await one.db.table('todos').put({ id: 'a', title: 'bad' });
  await expect.poll(() => first.texts('li')).toEqual(['refused bad']);
  await expect.poll(() => second.texts('li')).toEqual(['refused bad']);
  second.container.querySelector('button')!.click();
  await expect.poll(() => second.texts('li')).toEqual([]);
  await expect.poll(() => first.texts('li')).toEqual([]);
});

test('a component that is given another sync shows that one', async () => {
  const [one, two] = [tab('one'), tab('two')];
  const { texts, root } = render(one.sync);
  await expect.poll(() => texts('p')).toEqual(['stopped 0']);
  root.render(<App sync={two.sync} />);
  await two.sync.start();
  await expect.poll(() => texts('p')).toEqual(['polling 0']);
  one.sync.status.set({ ...one.sync.status.value, pending: 5 });
  two.sync.status.set({ ...two.sync.status.value, pending: 6 });
  await expect.poll(() => texts('p')).toEqual(['polling 6']);
});

test('a server renders what is known without a browser', () => {
  expect(renderToString(<App sync={tab('server').sync} />)).toContain('stopped 0');
});
