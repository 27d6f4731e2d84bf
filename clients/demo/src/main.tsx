import '@fontsource-variable/inter';
import './style.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import 'sync-ext/element';
import type { Start } from '../server/world.ts';
import { App } from './app.tsx';
import { Device, removeOthers } from './device.ts';

const start: Start = await (await fetch('/demo')).json();
await removeOthers(start.run);
const only = new URLSearchParams(location.search).get('user');
const devices = ['ann', 'bob'].filter((user) => user === (only ?? user)).map((user) => new Device(user, start.run));
for (const { sync } of devices) await sync.start();
createRoot(document.getElementById('root')!).render(<StrictMode><App devices={devices} start={start} /></StrictMode>);
