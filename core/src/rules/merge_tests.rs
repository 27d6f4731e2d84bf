use super::*;
use crate::rules::model::{delete, op, patch};

fn take(
    record: &mut Option<RecordState<'static>>,
    op: &Op<'static>,
    owner: Owner,
    version: i64,
) -> Decision {
    let turn = turn(op, record.as_ref()).unwrap();
    apply(record, op, &turn, owner, None, Version::stored(version))
}

/// The first op has version 11.
fn on_one_record(
    ops: &[Op<'static>],
    mut register: Option<RecordState<'static>>,
) -> (Vec<Decision>, Option<RecordState<'static>>) {
    let decide = |(op, version)| take(&mut register, op, None, version);
    let decisions = ops.iter().zip(11..).map(decide).collect();
    (decisions, register)
}

fn register_of(op: &Op<'static>, version: i64) -> RecordState<'static> {
    RecordState {
        register: op.revision.clone(),
        deleted: op.operation == Operation::Delete,
        version: Version::stored(version),
        newest: Newest::Register,
        owner: None,
        scope: None,
    }
}

#[test]
fn the_highest_revision_wins() {
    let ops = [op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)];
    let (decisions, register) = on_one_record(&ops, None);
    let applied: Vec<bool> = decisions.iter().map(|d| d.applied).collect();
    assert_eq!(applied, [true, false, true]);
    assert_eq!(register, Some(register_of(&ops[2], 13)));
}

#[test]
fn supersedes_is_the_winner_replaced_at_that_turn() {
    let before = register_of(&op(9, "a", 1), 4);
    let ops = [op(1, "a", 2), op(2, "a", 1), op(3, "a", 3)];
    let (decisions, _) = on_one_record(&ops, Some(before));
    let supersedes: Vec<_> = decisions.iter().map(|d| d.supersedes.map(Version::get)).collect();
    assert_eq!(supersedes, [Some(4), None, Some(11)]);
}

#[test]
fn the_same_revision_again_does_not_win() {
    let deletion = delete(1, "a", 5);
    let before = Some(register_of(&deletion, 4));
    let (decisions, after) = on_one_record(std::slice::from_ref(&deletion), before.clone());
    assert!(!decisions[0].applied);
    assert_eq!(after, before);
}

#[test]
fn an_older_put_loses_to_a_delete_and_a_newer_one_brings_the_record_back() {
    let grave = register_of(&delete(1, "a", 5), 4);
    let (decisions, after) = on_one_record(&[op(2, "a", 4), op(3, "a", 6)], Some(grave));
    assert!(!decisions[0].applied);
    assert!(decisions[1].applied);
    assert_eq!(after, Some(register_of(&op(3, "a", 6), 12)));
}

#[test]
fn a_delete_of_an_unknown_record_is_a_tombstone() {
    let (decisions, after) = on_one_record(&[delete(1, "a", 1)], None);
    assert!(after.unwrap().deleted);
    assert!(!decisions[0].created);
}

#[test]
fn a_put_creates_where_no_live_record_is() {
    let ops = [
        op(1, "a", 2),
        op(2, "a", 3),
        op(3, "a", 1),
        delete(4, "a", 4),
        op(5, "a", 3),
        op(6, "a", 5),
    ];
    let created = |ops, before| -> Vec<bool> {
        on_one_record(ops, before).0.iter().map(|decision| decision.created).collect()
    };
    assert_eq!(
        created(&ops, None),
        [true, false, false, false, false, true],
        "neither an update, nor what loses, nor a delete creates"
    );
    let live = register_of(&op(9, "a", 1), 4);
    assert_eq!(created(&ops[..1], Some(live)), [false]);
}

#[test]
fn an_op_that_wins_overwrites_the_entry_that_its_author_had_not_seen() {
    let by = |parent, op: Op<'static>| Op { parent, ..op };
    let (seen, unseen) = (Uuid::from_u128(9), Uuid::from_u128(8));
    let overwrote = |op: Op<'static>| {
        let before = register_of(&super::super::model::op(9, "a", 1), 4);
        on_one_record(&[op], Some(before)).0[0].overwrote
    };
    assert_eq!(overwrote(op(1, "a", 2)), None, "without a parent nothing is overwritten");
    assert_eq!(overwrote(by(Some(Parent::Op(seen)), op(1, "a", 2))), None);
    assert_eq!(overwrote(by(Some(Parent::Op(unseen)), op(1, "a", 2))), Some(seen));
    assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 2))), Some(seen));
    assert_eq!(overwrote(by(Some(Parent::None), delete(1, "a", 2))), Some(seen));
    assert_eq!(overwrote(by(Some(Parent::None), op(1, "a", 0))), None, "it lost");
    let first = by(Some(Parent::Op(unseen)), op(1, "a", 2));
    assert_eq!(on_one_record(&[first], None).0[0].overwrote, None, "nothing was there");
}

#[test]
fn ops_of_a_batch_are_each_others_newest_entries() {
    let ops = [
        Op { parent: Some(Parent::None), ..op(1, "a", 1) },
        Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..op(2, "a", 2) },
        Op { parent: Some(Parent::Op(Uuid::from_u128(1))), ..delete(3, "a", 3) },
    ];
    let overwrote: Vec<_> = on_one_record(&ops, None).0.iter().map(|d| d.overwrote).collect();
    assert_eq!(overwrote, [None, None, Some(Uuid::from_u128(2))]);
}

#[test]
fn a_record_gets_its_owner_with_its_first_op_and_keeps_it() {
    let (mut register, ann) = (None, || Some("ann".into()));
    take(&mut register, &op(1, "a", 1), ann(), 1);
    take(&mut register, &delete(2, "a", 2), ann(), 2);
    let register = register.unwrap();
    assert!(register.deleted && register.owner.as_deref() == Some("ann"));
}

/// A record put by op 1 with clock 5, of which op 2 holds x with clock 7.
fn patched() -> (Op<'static>, Option<RecordState<'static>>) {
    let put = op(1, "a", 5);
    let mut record = None;
    take(&mut record, &put, None, 1);
    take(&mut record, &patch(2, &put, 7, &["x"]), None, 2);
    (put, record)
}

fn won(op: &Op<'static>, record: &Option<RecordState<'static>>) -> Option<Vec<bool>> {
    match turn(op, record.as_ref()).unwrap() {
        Turn::Merges { won } => Some(won),
        Turn::Loses => None,
        Turn::Replaces => panic!("a patch replaces nothing"),
    }
}

fn holders(record: &Option<RecordState<'static>>) -> Vec<(String, u128)> {
    let fields = record.as_ref().unwrap().fields().into_iter().flatten();
    fields.map(|(name, by)| (name.to_string(), by.op_id.as_u128())).collect()
}

#[test]
fn a_patch_wins_the_fields_that_no_later_patch_holds() {
    let (put, record) = patched();
    assert_eq!(won(&patch(3, &put, 6, &["x", "y"]), &record), Some(vec![false, true]));
    assert_eq!(won(&patch(3, &put, 6, &["x"]), &record), None);
    assert_eq!(won(&patch(3, &put, 8, &["x", "y"]), &record), Some(vec![true, true]));
    assert_eq!(won(&patch(2, &put, 7, &["x"]), &record), None, "it lost to itself");
}

#[test]
fn a_merged_patch_is_the_newest_entry_and_leaves_the_register() {
    let (put, mut record) = patched();
    let decision = take(&mut record, &patch(3, &put, 6, &["x", "y"]), None, 3);
    assert_eq!((decision.applied, decision.created), (true, false));
    assert_eq!(decision.supersedes, Some(Version::stored(2)));
    assert_eq!(holders(&record), [("x".to_owned(), 2), ("y".to_owned(), 3)]);
    let record = record.unwrap();
    assert_eq!((record.register, record.version.get()), (put.revision, 3));
}

#[test]
fn a_patch_of_a_put_that_never_came_is_refused_and_one_of_a_replaced_put_loses() {
    let (put, mut record) = patched();
    let (later, never) = (op(3, "a", 6), op(4, "a", 9));
    let missing = |record| turn(&patch(5, &never, 10, &["x"]), record);
    assert_eq!(missing(record.as_ref()), Err(Refusal::BaseMissing));
    assert_eq!(missing(None), Err(Refusal::BaseMissing));
    take(&mut record, &later, None, 3);
    assert_eq!(holders(&record), [], "a put ends the patches before it");
    assert_eq!(won(&patch(5, &put, 99, &["x"]), &record), None);
    take(&mut record, &delete(6, "a", 7), None, 4);
    assert_eq!(won(&patch(5, &later, 99, &["x"]), &record), None);
    let of_delete = patch(7, &delete(6, "a", 7), 99, &["x"]);
    assert_eq!(won(&of_delete, &record), None, "a delete has no fields");
}

#[test]
fn a_base_is_compared_as_a_revision() {
    let (put, record) = patched();
    let higher = Op { revision: Revision { clock: 6, ..put.revision.clone() }, ..put.clone() };
    assert_eq!(turn(&patch(5, &higher, 8, &["y"]), record.as_ref()), Err(Refusal::BaseMissing));
    let lower = Op { revision: Revision { clock: 4, ..put.revision.clone() }, ..put };
    assert_eq!(won(&patch(5, &lower, 8, &["y"]), &record), None);
}

#[test]
fn a_put_is_decided_by_the_register_and_not_by_the_fields() {
    let (_, record) = patched();
    assert_eq!(turn(&op(3, "a", 6), record.as_ref()), Ok(Turn::Replaces), "below the patch");
    assert_eq!(turn(&op(3, "a", 4), record.as_ref()), Ok(Turn::Loses));
}

#[test]
fn a_condition_names_the_newest_entry_or_none() {
    let (_, record) = patched();
    let put = |expected| Op { expected: Some(Box::new(expected)), ..op(9, "a", 9) };
    let conflict = Err(Refusal::RecordConflict);
    let newest = |id| Expected::Op(Uuid::from_u128(id));
    assert_eq!(turn(&put(newest(2)), record.as_ref()), Ok(Turn::Replaces));
    assert_eq!(turn(&put(newest(1)), record.as_ref()), conflict, "the register alone");
    assert_eq!(turn(&put(newest(2)), None), conflict);
    assert_eq!(turn(&put(Expected::None), record.as_ref()), conflict);
    assert_eq!(turn(&put(Expected::None), None), Ok(Turn::Replaces));
    let grave = Some(register_of(&delete(4, "a", 8), 4));
    assert_eq!(turn(&put(newest(4)), grave.as_ref()), Ok(Turn::Replaces));
    assert_eq!(turn(&put(Expected::None), grave.as_ref()), Ok(Turn::Replaces));
    let loses = Op { revision: op(9, "a", 1).revision, ..put(newest(1)) };
    assert_eq!(turn(&loses, record.as_ref()), conflict, "whether it would win or not");
}

#[test]
fn a_condition_on_fields_names_who_holds_each() {
    let (base, record) = patched();
    let with = |fields: &[(&'static str, u128)]| {
        let of = |(name, id): &(&'static str, u128)| ((*name).into(), Uuid::from_u128(*id));
        let expected = Some(Box::new(Expected::Fields(fields.iter().map(of).collect())));
        Op { expected, ..patch(9, &base, 9, &["x"]) }
    };
    let is_met = |op: &Op<'static>| match turn(op, record.as_ref()) {
        Err(Refusal::FieldConflict) => false,
        other => other.is_ok(),
    };
    assert!(is_met(&with(&[("x", 2)])));
    assert!(is_met(&with(&[("x", 2), ("y", 1)])), "the put holds what no patch does");
    assert!(!is_met(&with(&[("x", 1)])), "not any more");
    assert!(!is_met(&with(&[("y", 2)])));
    assert!(!is_met(&with(&[("x", 2), ("y", 2)])), "all of them");
    let grave = Some(register_of(&delete(1, "a", 5), 4));
    assert_eq!(turn(&with(&[("y", 1)]), grave.as_ref()), Err(Refusal::FieldConflict));
}

#[test]
fn an_op_that_was_stored_and_purged_is_not_checked_again() {
    let (put, record) = patched();
    let conditional = |op: Op<'static>| Op { expected: Some(Box::new(Expected::None)), ..op };
    assert_eq!(turn(&conditional(put.clone()), record.as_ref()), Ok(Turn::Loses));
    let again = conditional(patch(2, &put, 7, &["x"]));
    assert_eq!(turn(&again, record.as_ref()), Ok(Turn::Loses));
    let other = conditional(patch(2, &put, 8, &["x"]));
    assert_eq!(turn(&other, record.as_ref()), Err(Refusal::RecordConflict), "not this op");
}

#[test]
fn a_put_overwrites_the_patch_that_its_author_had_not_seen() {
    let (_, record) = patched();
    let overwrote = |seen| {
        let parent = Some(Parent::Op(Uuid::from_u128(seen)));
        take(&mut record.clone(), &Op { parent, ..op(9, "a", 9) }, None, 3).overwrote
    };
    assert_eq!(overwrote(2), None);
    assert_eq!(overwrote(1), Some(Uuid::from_u128(2)), "the put alone was seen");
}

#[test]
fn what_needs_the_log_is_known() {
    let (put, record) = patched();
    let unread = RecordState { newest: Newest::Unread, ..record.unwrap() };
    assert!(!needs_newest(&op(9, "a", 9), &unread));
    assert!(needs_newest(&patch(9, &put, 9, &["x"]), &unread));
    assert!(needs_newest(&Op { parent: Some(Parent::None), ..op(9, "a", 9) }, &unread));
    assert!(needs_newest(
        &Op { expected: Some(Box::new(Expected::None)), ..op(9, "a", 9) },
        &unread
    ));
}

#[test]
fn a_patch_holds_a_field_until_another_does_or_its_base_is_replaced() {
    let (put, record) = patched();
    let held = |record: &Option<RecordState<'static>>| {
        holds(&patch(2, &put, 7, &["x"]), "x", record.as_ref().unwrap())
    };
    let mut later = record.clone();
    assert!(held(&later));
    take(&mut later, &patch(3, &put, 8, &["x"]), None, 3);
    assert!(!held(&later));
    let mut replaced = record.clone();
    take(&mut replaced, &op(4, "a", 6), None, 3);
    assert!(!held(&replaced));
}
