import { useLiveQuery } from 'dexie-react-hooks';
import { type FormEvent, useEffect, useState } from 'react';
import { useConflicts, useSyncStatus } from 'sync-ext/react';
import type { Device, List, Todo } from './device.ts';
import { byAge } from './pane.tsx';

export function Todos({ device, list }: { device: Device; list: List }) {
  const { db, sync } = device;
  const todos = useLiveQuery(
    async () => (await db.todos.where({ list_id: list.id }).toArray()).sort(byAge),
    [db, list.id],
  );
  const pending = usePending(device);
  const conflicts = new Set(useConflicts(sync).map(({ pk }) => pk));
  const add = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const title = String(new FormData(form).get('title')).trim();
    form.reset();
    if (title) void device.addTodo(list, title);
  };

  return (
    <>
      <ul className="todos">
        {todos?.map((todo) => (
          <Item
            key={todo.id}
            todo={todo}
            device={device}
            mark={conflicts.has(todo.id) ? 'conflict' : pending.has(todo.id) ? 'pending' : null}
          />
        ))}
        {todos?.length === 0 && <li className="empty">Nothing to do here.</li>}
      </ul>
      <form className="new" onSubmit={add}>
        <input name="title" placeholder={`Add to ${list.title}`} aria-label={`Add to ${list.title}`} autoComplete="off" />
        <button aria-label="Add">Add</button>
      </form>
    </>
  );
}

interface ItemProps {
  todo: Todo;
  device: Device;
  mark: 'pending' | 'conflict' | null;
}

function Item({ todo: { id, title, done }, device: { db }, mark }: ItemProps) {
  const [isEditing, setEditing] = useState(false);
  const rename = (text: string) => {
    setEditing(false);
    const wanted = text.trim();
    if (wanted && wanted !== title) void db.todos.update(id, { title: wanted });
  };

  return (
    <li className={`${done ? 'done' : ''} ${mark ?? ''}`}>
      <input
        type="checkbox"
        checked={done}
        aria-label={`Done: ${title}`}
        onChange={(event) => void db.todos.update(id, { done: event.target.checked })}
      />
      {isEditing ? (
        <input
          className="title"
          defaultValue={title}
          aria-label={`Title of ${title}`}
          autoFocus
          onFocus={(event) => event.target.select()}
          onBlur={(event) => rename(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === 'Enter') rename(event.currentTarget.value);
            if (event.key === 'Escape') setEditing(false);
          }}
        />
      ) : (
        <button className="title" onClick={() => setEditing(true)}>{title}</button>
      )}
      {mark && <span className="mark">{mark === 'pending' ? 'not sent' : 'conflict'}</span>}
      <button className="remove" aria-label={`Delete ${title}`} onClick={() => void db.todos.delete(id)}>×</button>
    </li>
  );
}

/** The records with edits that the server does not hold yet. */
function usePending({ sync }: Device): ReadonlySet<string> {
  const status = useSyncStatus(sync);
  const [pks, setPks] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => {
    let isCurrent = true;
    void sync.pending().then((ops) => {
      if (isCurrent) setPks(new Set(ops.map(({ pk }) => pk)));
    });
    return () => {
      isCurrent = false;
    };
  }, [sync, status]);
  return pks;
}
