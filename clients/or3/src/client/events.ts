/** Server-sent events, read from a stream of bytes: EventSource sends no headers. */

export interface ServerEvent {
  name: string;
  data: string;
}

export async function* eventsOf(
  bytes: ReadableStream<Uint8Array>,
): AsyncGenerator<ServerEvent, void, void> {
  let [name, data] = ['message', [] as string[]];
  for await (const line of linesOf(bytes)) {
    if (line === '') {
      if (data.length > 0) yield { name, data: data.join('\n') };
      [name, data] = ['message', []];
      continue;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') name = value;
    if (field === 'data') data.push(value);
  }
}

async function* linesOf(bytes: ReadableStream<Uint8Array>): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  const reader = bytes.getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      // A line feed after a carriage return may come with the next bytes.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop()!;
      yield* lines;
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
