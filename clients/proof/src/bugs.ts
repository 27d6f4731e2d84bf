/** Bugs that each lose an edit, or leave devices apart, in their own way: the histories must find
 * them. */
import type { Bug } from './program.ts';

export const BUGS: Bug[] = [
  {
    name: 'late_replies_are_stored',
    file: 'device.ts',
    text: 'state.answered > begun.calls || placeOf(state) !== placeOf(begun)',
    by: 'false',
  },
  { name: 'sent_is_not_kept', file: 'device.ts', text: 'await tx.markSent(ops);', by: '' },
  { name: 'what_was_sent_is_changed', file: 'rules/edit.ts', text: 'return !sent && op.expected', by: 'return op.expected' },
  { name: 'ops_leave_with_their_answer', file: 'rules/answer.ts', text: 'Math.min(version, winners) > cursor', by: 'false' },
  {
    name: 'what_a_restore_took_is_not_pushed_again',
    file: 'rules/answer.ts',
    text: 'answered <= cursor || head < answered',
    by: 'false',
  },
  { name: 'a_restore_takes_edits_in_silence', file: 'snapshot.ts', text: "return device.find(tx, key, old.newest!, { kind: 'restored', mine, theirs });", by: 'return;' },
  { name: 'a_restore_is_not_noticed', file: 'device.ts', text: 'state.proof = page.proof;', by: '' },
  { name: 'a_patch_becomes_the_register', file: 'rules/answer.ts', text: 'revisionOf(base ?? stamp)', by: 'revisionOf(stamp)' },
  { name: 'the_cursor_skips_pages', file: 'device.ts', text: 'state.cursor = page.nextCursor;', by: 'state.cursor = page.serverVersion;' },
  { name: 'the_cursor_is_not_kept', file: 'device.ts', text: 'state.cursor = page.nextCursor;', by: '' },
  { name: 'a_snapshot_below_the_cursor_counts_for_nothing', file: 'snapshot.ts', text: ' || state.historyLost) {', by: ') {' },
  { name: 'what_a_snapshot_lacks_stays', file: 'snapshot.ts', text: 'inParts([...left])', by: 'inParts<Key>([])' },
  { name: 'a_page_token_is_kept_for_ever', file: 'snapshot.ts', text: 'if (!isOver) throw error;', by: 'throw error;' },
  { name: 'a_snapshot_is_stored_page_by_page', file: 'snapshot.ts', text: 'isWhole = nextPageToken === null', by: 'isWhole = true' },
  { name: 'streams_tell_what_is_stored', file: 'device.ts', text: 'goesOn && reply.nextCursor > state.cursor', by: 'goesOn' },
  { name: 'streams_from_before_a_snapshot_go_on', file: 'device.ts', text: ' || state.generation !== opened.generation', by: '' },
  { name: 'rows_from_before_are_not_pushed', file: 'device.ts', text: 'for (const table of added) await', by: 'for (const table of [] as string[]) await' },
  { name: 'pending_comes_over_what_is_newer', file: 'rules/view.ts', text: 'if (compare(revision, view.register) <= 0) return;', by: '' },
  { name: 'a_patch_edits_any_base', file: 'rules/view.ts', text: '!view.payload || !isSame(op.base, view.register)', by: '!view.payload' },
  { name: 'a_patch_overwrites_newer_fields', file: 'rules/view.ts', text: '.filter(([name]) => compare(revision, holderOf(view.fields, name)) > 0)', by: '' },
  { name: 'the_clock_stands_still', file: 'rules/edit.ts', text: 'clock: known + 1', by: 'clock: 1' },
  {
    name: 'the_outbox_hides_what_is_synced',
    file: 'store/dexie_tx.ts',
    text: 'synced || (this.#inRow.has(key) && !isRow)',
    by: 'synced',
  },
  {
    name: 'a_capture_reads_after_the_write',
    file: 'store/dexie.ts',
    text: 'record(response, state.result, known()));',
    by: 'all([tx.state(), tx.known(unique)]).then(([state, known]) => record(response, state, known)));',
  },
  { name: 'waiting_patches_are_dropped', file: 'rules/answer.ts', text: '(hasBase ? left : dropped)', by: 'dropped' },
  { name: 'waiting_patches_wait_for_ever', file: 'rules/answer.ts', text: '} else if (entry.waits) {', by: '} else if (false) {' },
  { name: 'hlcs_go_back_with_the_system_clock', file: 'rules/author.ts', text: 'if (now > millis)', by: 'if (now)' },
];
