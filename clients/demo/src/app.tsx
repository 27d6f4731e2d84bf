import { useState } from 'react';
import type { Start } from '../server/world.ts';
import type { Device } from './device.ts';
import { Pane } from './pane.tsx';

export function App({ devices, start }: { devices: Device[]; start: Start }) {
  return (
    <>
      <header>
        <h1><b>sync_ext</b> Todos of two people</h1>
        <p>Each side is a device with a database of its own. Take one offline, edit, and let it come back.</p>
      </header>
      <main className={devices.length === 1 ? 'single' : ''}>
        {devices.map((device) => <Pane key={device.user} device={device} />)}
      </main>
      <Sql start={start} />
    </>
  );
}

/** What the backend might do: it changes the same rows, and knows nothing of devices. */
function Sql({ start }: { start: Start }) {
  const [error, setError] = useState('');
  const run = async (number: number) => {
    const response = await fetch(`/demo/${number}`, { method: 'POST' });
    setError(response.ok ? '' : await response.text());
  };
  return (
    <section className="sql" aria-label="Plain SQL">
      <h2>The same rows by plain SQL</h2>
      <ul>
        {start.statements.map((statement, number) => (
          <li key={statement}>
            <code><Highlighted sql={statement} /></code>
            <button onClick={() => void run(number)} aria-label={`Run ${statement}`}>Run</button>
          </li>
        ))}
      </ul>
      {error && <p role="alert">{error}</p>}
    </section>
  );
}

function Highlighted({ sql }: { sql: string }) {
  return sql.split(/([A-Z]{2,}|'[^']*')/).map((part, i) => {
    if (i % 2 === 0) return part;
    return part.startsWith("'") ? <q key={i}>{part}</q> : <b key={i}>{part}</b>;
  });
}
