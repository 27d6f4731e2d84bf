//! Whose a record is. In a table with an owner field new records are private:
//! the first op that is accepted for one fixes its owner, for good.

use std::borrow::Cow;

use super::op::Operation;
use super::refusal::Refusal;

/// A user's name; `None` for what is everybody's.
pub type Owner = Option<Box<str>>;

/// What an op's payload says about the owner of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// The table has no owner field.
    Unasked,
    /// The field is not there.
    Absent,
    User(Cow<'a, str>),
    /// The field holds what cannot be a user.
    Nobody,
}

/// The owner of an op's record, and whether the payload must be made to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub owner: Owner,
    pub fill: bool,
}

/// `user` is `None` for a trusted caller, who may write everybody's records;
/// `known` is the owner of a record that exists.
///
/// A record that was everybody's stays so, also when its table gets an owner
/// field later; and a private one stays private when its table loses it.
pub fn own(
    user: Option<&str>,
    claim: &Claim<'_>,
    operation: Operation,
    known: Option<&Owner>,
) -> Result<Owned, Refusal> {
    let owner: &str = match (known, user) {
        (Some(None), _) => return Ok(Owned { owner: None, fill: false }),
        (None, _) if *claim == Claim::Unasked => return Ok(Owned { owner: None, fill: false }),
        // Whether the record is another user's, or the payload says that it is
        // to be, is told in the same words: the first is not for this user to know.
        (Some(Some(owner)), Some(user)) if **owner != *user => return Err(Refusal::Unauthorized),
        (Some(Some(owner)), _) => owner,
        (None, Some(user)) => user,
        (None, None) => match claim {
            Claim::User(owner) => owner,
            _ => return Err(Refusal::NoOwner),
        },
    };
    let fill = match (operation, claim) {
        (Operation::Delete, _) | (Operation::Put, Claim::Unasked) => false,
        (Operation::Put, Claim::Absent) => true,
        (Operation::Put, Claim::User(told)) if *told == owner => false,
        (Operation::Put, _) => {
            return Err(if user.is_some() { Refusal::Unauthorized } else { Refusal::NoOwner });
        }
    };
    Ok(Owned { owner: Some(owner.into()), fill })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Operation = Operation::Put;
    const DELETE: Operation = Operation::Delete;

    fn user(name: &str) -> Claim<'_> {
        Claim::User(name.into())
    }

    fn private(name: &str, fill: bool) -> Result<Owned, Refusal> {
        Ok(Owned { owner: Some(name.into()), fill })
    }

    const SHARED: Result<Owned, Refusal> = Ok(Owned { owner: None, fill: false });

    #[test]
    fn a_new_record_is_its_users() {
        let ann = Some("ann");
        assert_eq!(own(ann, &Claim::Absent, PUT, None), private("ann", true));
        assert_eq!(own(ann, &user("ann"), PUT, None), private("ann", false));
        assert_eq!(own(ann, &Claim::Absent, DELETE, None), private("ann", false));
        for claim in [user("bob"), user(""), Claim::Nobody] {
            assert_eq!(own(ann, &claim, PUT, None), Err(Refusal::Unauthorized), "{claim:?}");
        }
    }

    #[test]
    fn a_trusted_caller_must_tell_the_owner_of_a_new_record() {
        for operation in [PUT, DELETE] {
            assert_eq!(own(None, &user("ann"), operation, None), private("ann", false));
            for claim in [Claim::Absent, Claim::Nobody] {
                assert_eq!(own(None, &claim, operation, None), Err(Refusal::NoOwner), "{claim:?}");
            }
        }
    }

    #[test]
    fn only_the_owner_and_trusted_callers_write_a_private_record() {
        let anns: Owner = Some("ann".into());
        for claim in [Claim::Unasked, Claim::Absent, user("ann"), user("bob")] {
            for operation in [PUT, DELETE] {
                let bobs = own(Some("bob"), &claim, operation, Some(&anns));
                assert_eq!(bobs, Err(Refusal::Unauthorized), "{claim:?}");
            }
        }
        for caller in [Some("ann"), None] {
            assert_eq!(own(caller, &Claim::Unasked, PUT, Some(&anns)), private("ann", false));
            assert_eq!(own(caller, &Claim::Absent, PUT, Some(&anns)), private("ann", true));
            assert_eq!(own(caller, &user("ann"), PUT, Some(&anns)), private("ann", false));
            assert_eq!(own(caller, &user("bob"), DELETE, Some(&anns)), private("ann", false));
        }
        let to_bob = |caller| own(caller, &user("bob"), PUT, Some(&anns));
        assert_eq!(to_bob(Some("ann")), Err(Refusal::Unauthorized));
        assert_eq!(to_bob(None), Err(Refusal::NoOwner));
    }

    #[test]
    fn what_is_everybodys_stays_so() {
        for caller in [Some("ann"), None] {
            assert_eq!(own(caller, &Claim::Unasked, PUT, None), SHARED);
            for claim in [Claim::Unasked, Claim::Absent, user("bob"), Claim::Nobody] {
                assert_eq!(own(caller, &claim, PUT, Some(&None)), SHARED, "{claim:?}");
            }
        }
    }
}
