import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { SyncError } from '../src/error.ts';
import { type ServerEvent, readEvents } from '../src/sse.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** A stream of these chunks that ends, fails or stays open after them. */
function streamOf(chunks: Uint8Array[], end: 'close' | 'stay' | Error = 'close') {
  const cancel = vi.fn();
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      if (end === 'close') controller.close();
    },
    pull(controller) {
      if (end instanceof Error) controller.error(end);
    },
    cancel,
  }, { highWaterMark: 0 });
  return { stream, cancel };
}

async function readAll(chunks: Uint8Array[]): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  for await (const event of readEvents(streamOf(chunks).stream, 45_000)) events.push(event);
  return events;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const read = (text: string) => readAll([bytes(text)]);

describe('readEvents', () => {
  test('reads_the_same_wherever_the_bytes_are_cut', async () => {
    const line = fc.string({ unit: fc.constantFrom('a', ' ', ':', 'ü', '\u{1f600}', '\ufeff') });
    const event = fc.record({
      event: fc.constantFrom('', 'changes', 'snapshot'),
      data: fc.array(line, { maxLength: 3 }),
      end: fc.constantFrom('\n', '\r\n', '\r'),
      comment: fc.boolean(),
    });
    await fc.assert(fc.asyncProperty(fc.array(event, { maxLength: 4 }), fc.array(fc.nat(300)), async (events, cuts) => {
      const text = events.map(({ event, data, end, comment }) => [
        ...(comment ? [': still here'] : []),
        ...(event ? [`event: ${event}`] : []),
        'id: 7',
        ...data.map((line) => `data: ${line}`),
        '', '',
      ].join(end)).join('');
      const all = bytes(text);
      const ends = [...new Set(cuts.map((cut) => Math.min(cut, all.length)))].sort((a, b) => a - b);
      const chunks = [...ends, all.length].map((end, i) => all.subarray(ends[i - 1] ?? 0, end));
      // A lone CR at the very end may be half of a CRLF.
      const whole = text.endsWith('\r') ? [...chunks, bytes('\n')] : chunks;
      const told = events.filter(({ data }) => data.length > 0)
        .map(({ event, data }) => ({ event: event || 'message', data: data.join('\n') }));
      expect(await readAll(whole)).toEqual(told);
    }), { numRuns: 500 });
  });

  test('reads_the_same_byte_by_byte', async () => {
    const all = bytes('event: changes\r\ndata: {"text":"Grüße \u{1f600}"}\r\n\r\n: beat\r\n\r\ndata: 2\r\n\r\n');
    expect(await readAll([...all].map((byte) => Uint8Array.of(byte)))).toEqual([
      { event: 'changes', data: '{"text":"Grüße \u{1f600}"}' }, { event: 'message', data: '2' },
    ]);
  });

  test('takes_one_space_after_the_colon_and_no_more', async () => {
    expect(await read('data:a\n\ndata: b\n\ndata:  c\n\n')).toEqual(['a', 'b', ' c'].map((data) => ({ event: 'message', data })));
  });

  test('joins_lines_of_data_and_forgets_the_name_with_each_event', async () => {
    expect(await read('event: one\ndata: 1\ndata: 2\n\ndata: 3\n\n')).toEqual([
      { event: 'one', data: '1\n2' }, { event: 'message', data: '3' },
    ]);
  });

  test('an_event_without_data_is_none_and_its_name_is_forgotten', async () => {
    expect(await read('event: one\n\ndata: 1\n\n')).toEqual([{ event: 'message', data: '1' }]);
  });

  test('an_event_that_is_cut_off_is_none', async () => {
    expect(await read('data: 1\n\nevent: changes\ndata: 2\n')).toEqual([{ event: 'message', data: '1' }]);
  });

  test('comments_and_other_fields_say_nothing', async () => {
    expect(await read(': data: 1\nid: 5\nretry: 9\nx: y\n\n')).toEqual([]);
  });

  test('counts_as_broken_when_nothing_comes_for_too_long', async () => {
    const { stream, cancel } = streamOf([bytes('data: 1\n\n')], 'stay');
    const events = readEvents(stream, 45_000);
    expect((await events.next()).value).toEqual({ event: 'message', data: '1' });
    const next = expect(events.next()).rejects.toThrow(expect.objectContaining({ code: 'NETWORK', message: 'the stream is silent' }));
    await vi.advanceTimersByTimeAsync(45_000);
    await next;
    expect(cancel).toHaveBeenCalledOnce();
  });

  test('a_comment_breaks_the_silence', async () => {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const stream = new ReadableStream<Uint8Array>({ start: (given) => { controller = given; } });
    const next = readEvents(stream, 45_000).next();
    for (let i = 0; i < 3; i++) {
      await vi.advanceTimersByTimeAsync(44_000);
      controller.enqueue(bytes(': beat\n\n'));
    }
    await vi.advanceTimersByTimeAsync(44_000);
    controller.enqueue(bytes('data: 1\n\n'));
    expect((await next).value).toEqual({ event: 'message', data: '1' });
    controller.close();
  });

  test('a_connection_that_fails_is_an_error_of_the_network', async () => {
    const cause = new TypeError('terminated');
    const events = readEvents(streamOf([], cause).stream, 45_000);
    const error = await events.next().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(SyncError);
    expect(error).toMatchObject({ code: 'NETWORK', message: 'the stream was cut', cause, remedy: 'later' });
  });

  test('who_stops_reading_ends_the_connection', async () => {
    const { stream, cancel } = streamOf([bytes('data: 1\n\ndata: 2\n\n')], 'stay');
    for await (const { data } of readEvents(stream, 45_000)) {
      if (data === '1') break;
    }
    expect(cancel).toHaveBeenCalledOnce();
  });

  test('the_end_of_the_stream_is_the_end', async () => {
    expect(await readAll([])).toEqual([]);
  });
});
