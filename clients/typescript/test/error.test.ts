import { expect, test } from 'vitest';
import { SyncError } from '../src/error.ts';

test.each<[string, number | undefined, string, string]>([
  ['NETWORK', undefined, '', 'later'],
  ['HTTP', 502, '', 'later'],
  ['LATE', undefined, '', 'later'],
  ['MALFORMED', undefined, '', 'later'],
  ['40001', 503, '', 'later'],
  ['55P03', 503, '', 'later'],
  ['25006', 503, '', 'later'],
  ['53200', 503, 'out of memory', 'later'],
  ['08006', 503, '', 'later'],
  ['57014', 408, 'request timed out', 'later'],
  ['54000', 400, 'too many streams', 'later'],
  ['SX002', 503, 'standby is behind the snapshot', 'later'],
  ['SX004', 503, 'workspace is elsewhere', 'later'],
  ['SX004', 500, 'internal error', 'later'],
  ['SX004', undefined, 'workspace is elsewhere', 'later'],
  ['XX000', 500, 'internal error', 'later'],
  ['SX001', 409, 'snapshot expired', 'snapshot'],
  ['SX003', 409, 'version is above the head', 'pull'],
  ['22P02', 400, '', 'content'],
  ['22P05', 400, '', 'content'],
  ['22021', 400, '', 'content'],
  ['54001', 400, '', 'content'],
  ['54000', 400, 'too many ops in one push', 'content'],
  ['54000', 400, 'reply is too large', 'content'],
  ['54000', 413, 'request is too large', 'content'],
  ['HTTP', 413, '', 'content'],
  ['28000', 401, '', 'login'],
  ['HTTP', 401, '', 'login'],
  ['42501', 403, 'permission denied for workspace', 'stop'],
  ['42704', 404, 'workspace does not exist', 'stop'],
  ['22023', 400, 'invalid request', 'stop'],
  ['22003', 400, '', 'stop'],
])('%s_with_status_%s_%s_is_mended_by_%s', (code, status, message, remedy) => {
  expect(new SyncError(code, message, { ...(status && { status }) }).remedy).toBe(remedy);
});

test('an_error_is_one_of_javascript_with_its_cause', () => {
  const cause = new Error('of the disk');
  const error = new SyncError('NETWORK', 'no answer', { cause, detail: 'd', hint: 'h', retryAfter: 5 });
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'SyncError', message: 'no answer', code: 'NETWORK', cause, detail: 'd', hint: 'h', retryAfter: 5 });
});
