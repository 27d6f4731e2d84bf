import { afterEach, describe, expect, test, vi } from 'vitest';
import { Emitter, Observable } from '../src/observable.ts';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('Observable', () => {
  test('tells_of_later_values_until_that_is_ended', () => {
    const observable = new Observable(1);
    const seen: number[] = [];
    const end = observable.subscribe((value) => seen.push(value));
    expect(observable.value).toBe(1);
    observable.set(2);
    end();
    observable.set(3);
    expect(seen).toEqual([2]);
    expect(observable.value).toBe(3);
  });

  test('has_the_new_value_when_it_tells_and_lets_listeners_come_and_go_meanwhile', () => {
    const observable = new Observable('a');
    const seen: string[] = [];
    const end = observable.subscribe(() => {
      end();
      observable.subscribe((value) => seen.push(`late ${value}`));
      seen.push(observable.value);
    });
    observable.subscribe((value) => seen.push(`other ${value}`));
    observable.set('b');
    observable.set('c');
    expect(seen).toEqual(['b', 'other b', 'other c', 'late c']);
  });
});

describe('Emitter', () => {
  interface Events {
    saved: { count: number };
    failed: string;
  }

  test('tells_the_listeners_of_an_event_and_no_others', () => {
    const emitter = new Emitter<Events>();
    const seen: unknown[] = [];
    const end = emitter.on('saved', ({ count }) => seen.push(count));
    emitter.on('failed', (why) => seen.push(why));
    emitter.emit('saved', { count: 1 });
    emitter.emit('failed', 'disk');
    end();
    emitter.emit('saved', { count: 2 });
    expect(seen).toEqual([1, 'disk']);
  });

  test('an_event_without_listeners_is_nothing', () => {
    expect(() => new Emitter<Events>().emit('failed', 'disk')).not.toThrow();
  });

  test('a_listener_that_fails_stops_neither_the_others_nor_who_tells', () => {
    const report = vi.fn();
    vi.stubGlobal('reportError', report);
    const emitter = new Emitter<Events>();
    const seen: string[] = [];
    const error = new Error('of the app');
    emitter.on('failed', () => {
      throw error;
    });
    emitter.on('failed', (why) => seen.push(why));
    emitter.emit('failed', 'disk');
    expect(seen).toEqual(['disk']);
    expect(report).toHaveBeenCalledExactlyOnceWith(error);
  });

  test('its_error_goes_to_the_console_where_nothing_else_takes_it', () => {
    vi.stubGlobal('reportError', undefined);
    const log = vi.spyOn(console, 'error').mockImplementation(() => {});
    const emitter = new Emitter<Events>();
    const error = new Error('of the app');
    emitter.on('saved', () => {
      throw error;
    });
    emitter.emit('saved', { count: 1 });
    expect(log).toHaveBeenCalledExactlyOnceWith(error);
  });

  test('a_listener_may_end_itself_while_it_is_told', () => {
    const emitter = new Emitter<Events>();
    const seen: string[] = [];
    const end = emitter.on('failed', () => {
      end();
      seen.push('first');
    });
    emitter.on('failed', () => seen.push('second'));
    emitter.emit('failed', '');
    emitter.emit('failed', '');
    expect(seen).toEqual(['first', 'second', 'second']);
  });
});

test('a_listener_that_throws_stops_neither_the_others_nor_who_tells_of_values_or_events', () => {
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
