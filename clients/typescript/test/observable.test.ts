import { expect, test, vi } from 'vitest';
import { Emitter, Observable } from '../src/observable.ts';

test('a listener that throws is reported, and stops neither the others nor who tells', () => {
  const report = vi.spyOn(console, 'error').mockImplementation(() => {});
  const failing = () => {
    throw new Error('of the app');
  };
  const seen: number[] = [];
  const value = new Observable(0);
  value.subscribe(failing);
  value.subscribe((now) => seen.push(now));
  value.set(1);
  const events = new Emitter<{ event: number }>();
  events.on('event', failing);
  events.on('event', (now) => seen.push(now));
  events.emit('event', 2);
  expect(seen).toEqual([1, 2]);
  expect(report).toHaveBeenCalledTimes(2);
  report.mockRestore();
});
