import { useLiveQuery } from 'dexie-react-hooks';
import { type FormEvent, useState, useSyncExternalStore } from 'react';
import { useConflicts, useSyncStatus } from 'sync-ext/react';
import { ConflictSheet } from './conflict.tsx';
import { type Device, type List, PROJECTS } from './device.ts';
import { Todos } from './todos.tsx';

/** A user's device. */
export function Pane({ device }: { device: Device }) {
  const { user, db, sync, network } = device;
  const name = user[0]!.toUpperCase() + user.slice(1);
  const isOnline = useSyncExternalStore(
    (listener) => network.isOnline.subscribe(listener),
    () => network.isOnline.value,
  );
  const lists = useLiveQuery(async () => (await db.lists.toArray()).sort(byAge), [db]) ?? [];
  const [chosen, choose] = useState<string>();
  const list = lists.find(({ id }) => id === chosen) ?? lists[0];
  const [conflict] = useConflicts(sync);
  const { scopes } = useSyncStatus(sync);

  return (
    <section className={`pane ${user} ${isOnline ? '' : 'offline'}`} aria-label={name}>
      <header>
        <span className="face" aria-hidden="true">{name[0]}</span>
        <div>
          <h2>{name}</h2>
          <sync-status sync={sync} />
        </div>
        {PROJECTS.slice(1).map((project) => (
          <label key={project} className="project">
            <input
              type="checkbox"
              role="switch"
              checked={scopes.wished?.includes(project) ?? true}
              onChange={(event) => void device.follow(project, event.target.checked)}
            />
            <span>{project}</span>
          </label>
        ))}
        <label className="switch">
          <input
            type="checkbox"
            role="switch"
            checked={isOnline}
            onChange={(event) => network.switch(event.target.checked)}
          />
          <span>{isOnline ? 'Online' : 'Offline'}</span>
        </label>
      </header>
      <Lists device={device} lists={lists} chosen={list} choose={choose} />
      {list && <Todos device={device} list={list} />}
      {conflict && <ConflictSheet key={conflict.id} conflict={conflict} device={device} lists={lists} />}
    </section>
  );
}

interface ListsProps {
  device: Device;
  lists: List[];
  chosen: List | undefined;
  choose(id: string): void;
}

function Lists({ device, lists, chosen, choose }: ListsProps) {
  const [isAdding, setAdding] = useState(false);
  const open = useLiveQuery(async () => {
    const counts: Record<string, number> = {};
    await device.db.todos.each(({ list_id, done }) => {
      if (!done) counts[list_id] = (counts[list_id] ?? 0) + 1;
    });
    return counts;
  }, [device]);
  const add = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const title = String(new FormData(event.currentTarget).get('title')).trim();
    setAdding(false);
    if (title) choose(await device.addList(title, chosen?.project ?? PROJECTS[0]!));
  };

  return (
    <nav aria-label="Lists">
      {lists.map(({ id, title, project }) => (
        <button key={id} className={project} aria-current={id === chosen?.id} title={`Of the project ${project}`} onClick={() => choose(id)}>
          {title} <small>{open?.[id] ?? 0}</small>
        </button>
      ))}
      {isAdding ? (
        <form onSubmit={(event) => void add(event)}>
          <input name="title" aria-label="Title of the list" autoFocus maxLength={30} onBlur={() => setAdding(false)} />
        </form>
      ) : (
        <button className="add" aria-label="Add a list" onClick={() => setAdding(true)}>+</button>
      )}
    </nav>
  );
}

/** The texts of times sort as the times do, whether a device wrote them or the server. */
export function byAge(a: { created_at: string }, b: { created_at: string }): number {
  return a.created_at < b.created_at ? -1 : 1;
}
