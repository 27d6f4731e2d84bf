import { SyncError } from './error.ts';

export interface ServerEvent {
  event: string;
  data: string;
}

/** The events of a stream of server-sent events. It counts as broken when nothing comes for so
 * many milliseconds, not even a comment. */
export async function* readEvents(body: ReadableStream<Uint8Array>, silence: number): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  let event = '';
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await within(silence, reader.read());
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      text = lines.pop()!;
      for (const line of lines) {
        if (line === '') {
          if (data.length > 0) yield { event: event || 'message', data: data.join('\n') };
          [event, data] = ['', []];
        } else if (line.startsWith('event:')) event = line.slice(6).trimStart();
        else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
      }
    }
  } finally {
    // Not awaited: of a broken connection it may take for ever.
    reader.cancel().catch(() => {});
  }
}

async function within<T>(time: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(reject, time);
  });
  try {
    return await Promise.race([promise, silence]);
  } catch (cause) {
    throw new SyncError('NETWORK', cause ? 'the stream was cut' : 'the stream is silent', { cause });
  } finally {
    clearTimeout(timer);
  }
}
