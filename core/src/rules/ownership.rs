//! The owner of a record. In a table with an owner field new records are private: the
//! first accepted op fixes the owner permanently.

use std::borrow::Cow;

use super::op::Operation;
use super::refusal::Refusal;

/// A user; `None` for a shared record.
pub type Owner = Option<Box<str>>;

/// What an op's payload says about the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerField<'a> {
    /// The table has no owner field.
    Unasked,
    /// The payload does not have the field.
    Absent,
    User(Cow<'a, str>),
    /// The value of the field is not a valid user.
    Nobody,
}

/// The owner of an op's record, and whether to add the owner to the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub owner: Owner,
    pub fill: bool,
}

/// `user` is `None` for a trusted caller, who may write every record; `known` is the
/// owner of an existing record.
///
/// A shared record stays shared if its table gets an owner field later, and a private
/// one stays private if its table loses the field.
pub fn own(
    user: Option<&str>,
    field: &OwnerField<'_>,
    operation: Operation,
    known: Option<&Owner>,
) -> Result<Owned, Refusal> {
    let owner: &str = match (known, user) {
        (Some(None), _) => return Ok(Owned { owner: None, fill: false }),
        (None, _) if *field == OwnerField::Unasked => {
            return Ok(Owned { owner: None, fill: false });
        }
        // The same refusal whether the record or the payload names another user: this
        // user learns no more than that the pk is in use.
        (Some(Some(owner)), Some(user)) if **owner != *user => return Err(Refusal::Unauthorized),
        (Some(Some(owner)), _) => owner,
        (None, Some(user)) => user,
        // It will be refused: there is no record that it could patch.
        (None, None) if operation == Operation::Patch => {
            return Ok(Owned { owner: None, fill: false });
        }
        (None, None) => match field {
            OwnerField::User(owner) => owner,
            _ => return Err(Refusal::NoOwner),
        },
    };
    let fill = match (operation, field) {
        (Operation::Delete, _) | (_, OwnerField::Unasked) => false,
        (operation, OwnerField::Absent) => operation == Operation::Put,
        (_, OwnerField::User(named)) if *named == owner => false,
        (Operation::Patch, _) => return Err(Refusal::Unauthorized),
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

    fn user(name: &str) -> OwnerField<'_> {
        OwnerField::User(name.into())
    }

    fn private(name: &str, fill: bool) -> Result<Owned, Refusal> {
        Ok(Owned { owner: Some(name.into()), fill })
    }

    const SHARED: Result<Owned, Refusal> = Ok(Owned { owner: None, fill: false });

    #[test]
    fn a_new_record_is_its_users() {
        let ann = Some("ann");
        assert_eq!(own(ann, &OwnerField::Absent, PUT, None), private("ann", true));
        assert_eq!(own(ann, &user("ann"), PUT, None), private("ann", false));
        assert_eq!(own(ann, &OwnerField::Absent, DELETE, None), private("ann", false));
        for field in [user("bob"), user(""), OwnerField::Nobody] {
            assert_eq!(own(ann, &field, PUT, None), Err(Refusal::Unauthorized), "{field:?}");
        }
    }

    #[test]
    fn a_trusted_caller_must_name_the_owner_of_a_new_record() {
        for operation in [PUT, DELETE] {
            assert_eq!(own(None, &user("ann"), operation, None), private("ann", false));
            for field in [OwnerField::Absent, OwnerField::Nobody] {
                assert_eq!(own(None, &field, operation, None), Err(Refusal::NoOwner), "{field:?}");
            }
        }
    }

    #[test]
    fn only_the_owner_and_trusted_callers_write_a_private_record() {
        let anns: Owner = Some("ann".into());
        for field in [OwnerField::Unasked, OwnerField::Absent, user("ann"), user("bob")] {
            for operation in [PUT, DELETE] {
                let bobs = own(Some("bob"), &field, operation, Some(&anns));
                assert_eq!(bobs, Err(Refusal::Unauthorized), "{field:?}");
            }
        }
        for caller in [Some("ann"), None] {
            assert_eq!(own(caller, &OwnerField::Unasked, PUT, Some(&anns)), private("ann", false));
            assert_eq!(own(caller, &OwnerField::Absent, PUT, Some(&anns)), private("ann", true));
            assert_eq!(own(caller, &user("ann"), PUT, Some(&anns)), private("ann", false));
            assert_eq!(own(caller, &user("bob"), DELETE, Some(&anns)), private("ann", false));
        }
        let to_bob = |caller| own(caller, &user("bob"), PUT, Some(&anns));
        assert_eq!(to_bob(Some("ann")), Err(Refusal::Unauthorized));
        assert_eq!(to_bob(None), Err(Refusal::NoOwner));
    }

    #[test]
    fn a_patch_adds_no_owner_and_names_the_records_if_any() {
        let patch = Operation::Patch;
        let anns: Owner = Some("ann".into());
        for caller in [Some("ann"), None] {
            for field in [OwnerField::Unasked, OwnerField::Absent, user("ann")] {
                assert_eq!(own(caller, &field, patch, Some(&anns)), private("ann", false));
            }
            for field in [user("bob"), OwnerField::Nobody] {
                assert_eq!(own(caller, &field, patch, Some(&anns)), Err(Refusal::Unauthorized));
            }
            assert_eq!(own(caller, &user("bob"), patch, Some(&None)), SHARED);
        }
        let bobs = own(Some("bob"), &OwnerField::Absent, patch, Some(&anns));
        assert_eq!(bobs, Err(Refusal::Unauthorized));
        assert!(own(None, &OwnerField::Absent, patch, None).is_ok(), "its base is missing");
    }

    #[test]
    fn a_shared_record_stays_shared() {
        for caller in [Some("ann"), None] {
            assert_eq!(own(caller, &OwnerField::Unasked, PUT, None), SHARED);
            for field in [OwnerField::Unasked, OwnerField::Absent, user("bob"), OwnerField::Nobody]
            {
                assert_eq!(own(caller, &field, PUT, Some(&None)), SHARED, "{field:?}");
            }
        }
    }
}
