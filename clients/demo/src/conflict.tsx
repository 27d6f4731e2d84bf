import { type FormEvent, useState } from 'react';
import type { Json, OpenConflict, Payload } from 'sync-ext';
import type { Device, List } from './device.ts';

interface Props {
  conflict: OpenConflict;
  device: Device;
  lists: List[];
}

/** An edit that did not come through, with both sides, for its user to decide. */
export function ConflictSheet({ conflict, device, lists }: Props) {
  const { kind, mine, theirs, error } = conflict;
  const [isOpen, setOpen] = useState(true);
  const name = String(mine?.title ?? theirs?.title ?? 'a todo');
  if (!isOpen) {
    return <button className="conflict-bar" onClick={() => setOpen(true)}>Decide about “{name}”</button>;
  }
  const isAboutTitle = fieldsOf(conflict).includes('title');
  const merge = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const title = String(new FormData(event.currentTarget).get('title')).trim();
    const now = await device.db.todos.get(conflict.pk);
    if (title) await conflict.merge({ ...(now ?? mine) as Payload, title });
  };

  return (
    <div className="sheet" role="dialog" aria-label={`Conflict about ${name}`}>
      <header>
        <h3>{error ? 'The server refuses an edit' : 'Both have edited this'}</h3>
        <button className="later" onClick={() => setOpen(false)}>Later</button>
      </header>
      {error && <p className="reason">{error.message}</p>}
      <div className="sides">
        <Side title={kind === 'refused' ? 'What you wanted' : 'Yours'} record={mine} conflict={conflict} lists={lists} />
        <Side title={kind === 'refused' ? 'As it is' : 'Theirs'} record={theirs} conflict={conflict} lists={lists} />
      </div>
      <div className="choices">
        {!error && <button onClick={() => void conflict.keepMine()}>Keep mine</button>}
        <button onClick={() => void conflict.keepTheirs()}>{error ? 'Give it up' : 'Keep theirs'}</button>
      </div>
      {isAboutTitle && (
        <form onSubmit={(event) => void merge(event)}>
          <input name="title" defaultValue={merged(mine, theirs)} aria-label="Another title" />
          <button>{error ? 'Try this' : 'Merge'}</button>
        </form>
      )}
    </div>
  );
}

function Side({ title, record, conflict, lists }: { title: string; record: Payload | null | undefined; conflict: OpenConflict; lists: List[] }) {
  return (
    <dl>
      <dt>{title}</dt>
      {record ? fieldsOf(conflict).map((field) => <dd key={field}>{text(field, record[field], lists)}</dd>)
        : <dd><i>{record === null ? 'deleted' : 'not there'}</i></dd>}
    </dl>
  );
}

/** The fields that the conflict is about. */
function fieldsOf({ fields, mine, theirs }: OpenConflict): string[] {
  if (fields || !mine || !theirs) return fields ?? ['title'];
  return ['title', 'done', 'list_id'].filter((name) => mine[name] !== theirs[name]);
}

function text(field: string, value: Json | undefined, lists: List[]): string {
  if (field === 'done') return value ? '✓ done' : 'not done';
  if (field === 'list_id') return `in ${lists.find(({ id }) => id === value)?.title ?? 'another list'}`;
  return String(value);
}

/** A first proposal for a title. */
function merged(mine: Payload | null, theirs: Payload | null | undefined): string {
  const titles = [mine?.title, theirs?.title].filter(Boolean);
  return [...new Set(titles)].join(' / ');
}
