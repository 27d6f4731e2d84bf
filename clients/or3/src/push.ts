/** Pushes that are refused as a whole, in parts. */
import type { PushBatch, PushResult } from './host.ts';
import type { Op, PushItem, PushReply } from './wire.ts';
import { toOp, toPushResult } from './convert.ts';
import { isAboutContent, ProviderError } from './error.ts';

/**
 * Pushes a batch. One that is refused as a whole because of what is in it is halved, until
 * only the ops at fault are refused: the app would try all of them again, a few times, and
 * then give all of them up.
 */
export async function pushBatch(
  { ops }: PushBatch,
  push: (ops: string) => Promise<PushReply>,
): Promise<PushResult> {
  return toPushResult(await pushParts(ops.map(toOp), push), ops);
}

async function pushParts(ops: Op[], push: (ops: string) => Promise<PushReply>): Promise<PushReply> {
  try {
    return await push(toJson(ops));
  } catch (caught) {
    if (!isAboutContent(caught) || ops.length === 0) throw caught;
    if (ops.length === 1) return { results: [refused(ops[0]!, caught)], serverVersion: 0 };
    const half = Math.ceil(ops.length / 2);
    // One after the other: the order of a device's ops is that of its edits.
    const first = await pushParts(ops.slice(0, half), push);
    const second = await pushParts(ops.slice(half), push);
    return {
      results: [...first.results, ...second.results],
      serverVersion: Math.max(first.serverVersion, second.serverVersion),
    };
  }
}

function toJson(ops: Op[]): string {
  try {
    return JSON.stringify(ops);
  } catch (cause) {
    // Too deep for the stack, or a value that JSON does not have.
    throw new ProviderError('too_large', { cause });
  }
}

function refused(op: Op, cause: unknown): PushItem {
  const error = cause instanceof Error ? cause.message : String(cause);
  return { opId: op.stamp.opId, success: false, errorCode: 'VALIDATION_ERROR', error };
}
