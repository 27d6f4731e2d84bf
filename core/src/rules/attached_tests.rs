use super::*;
use crate::rules::attach_notice::{ForeignKey, Parent, UniqueKey};

fn column(name: &str, kind: Kind) -> Column {
    Column {
        name: name.to_owned(),
        type_name: format!("{kind:?}").to_lowercase(),
        kind,
        is_deterministic: true,
        is_not_null: false,
        has_default: false,
        generated: Generated::No,
        is_numbered: false,
        key_place: None,
        obstacle: None,
    }
}

fn key(name: &str, place: usize) -> Column {
    Column { key_place: Some(place), is_not_null: true, ..column(name, Kind::Uuid) }
}

fn tasks() -> Relation {
    Relation {
        name: "tasks".to_owned(),
        kind: RelationKind::Table,
        persistence: Persistence::Permanent,
        is_partition: false,
        is_system: false,
        inherits: false,
        has_rules: false,
        has_row_security: false,
        deferrable_key: Some(false),
        columns: vec![
            key("id", 1),
            Column { is_not_null: true, ..column("workspace_id", Kind::Text) },
            column("title", Kind::Text),
            column("gone_at", Kind::Timestamptz),
        ],
    }
}

/// The defaults of sync_attach_table.
fn request() -> Request<'static> {
    Request {
        table_name: None,
        workspace_column: Some("workspace_id"),
        workspace_id: None,
        owner_column: None,
        deleted_column: None,
        scope_column: None,
        columns: None,
        patches: false,
        direction: Some("both"),
        apply_as: Some("caller"),
        reads: None,
        numbers: Some("safe"),
    }
}

fn decide(relation: &Relation, request: &Request<'_>) -> Result<Attachment> {
    Candidate { relation, request }.decide()
}

fn named(columns: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(columns.iter().map(|(field, column)| ((*field).into(), (*column).into())).collect())
}

/// The error for a table that differs in this.
fn refused_table(change: impl FnOnce(&mut Relation)) -> Error {
    let mut relation = tasks();
    change(&mut relation);
    decide(&relation, &request()).unwrap_err()
}

/// The error for the columns after the key that differ in this.
fn refused_column(place: usize, change: impl FnOnce(&mut Column), request: &Request<'_>) -> Error {
    let mut relation = tasks();
    change(&mut relation.columns[place]);
    decide(&relation, request).unwrap_err()
}

fn refused(request: &Request<'_>) -> Error {
    decide(&tasks(), request).unwrap_err()
}

#[test]
fn by_default_all_columns_but_the_workspaces_are_synced_by_their_names() {
    let attachment = decide(&tasks(), &request()).unwrap();
    assert_eq!(attachment.table_name, "tasks");
    assert_eq!(attachment.pk_field, "id");
    let fields = [("id", "id"), ("title", "title"), ("gone_at", "gone_at")];
    assert_eq!(Some(attachment.fields), named(&fields));
    assert_eq!(attachment.workspace_column.as_deref(), Some("workspace_id"));
    assert_eq!((attachment.workspace_id, attachment.deleted_column), (None, None));
}

#[test]
fn given_columns_are_synced_in_the_order_of_the_table() {
    let request = Request {
        table_name: Some("todo"),
        owner_column: Some("title"),
        deleted_column: Some("gone_at"),
        columns: named(&[("by", "title"), ("key", "id")]),
        ..request()
    };
    let attachment = decide(&tasks(), &request).unwrap();
    assert_eq!(attachment.table_name, "todo");
    assert_eq!(attachment.pk_field, "key");
    assert_eq!(attachment.owner_field.as_deref(), Some("by"));
    assert_eq!(attachment.deleted_column.as_deref(), Some("gone_at"));
    assert_eq!(Some(attachment.fields), named(&[("key", "id"), ("by", "title")]));
}

#[test]
fn a_key_of_several_columns_has_no_field() {
    let mut relation = tasks();
    relation.columns.push(key("line", 2));
    assert_eq!(decide(&relation, &request()).unwrap().pk_field, "");
    let request = Request { columns: named(&[("id", "id")]), ..request() };
    let error = decide(&relation, &request).unwrap_err();
    assert_eq!(error, Error::KeyLeftOut { column: "line".into() });
}

#[test]
fn a_table_of_one_workspace_needs_no_column_for_it() {
    let mut relation = tasks();
    relation.columns.remove(1);
    let request = Request { workspace_id: Some("w"), ..request() };
    let attachment = decide(&relation, &request).unwrap();
    assert_eq!((attachment.workspace_column, attachment.workspace_id), (None, Some("w".into())));
    let reserved = refused(&request);
    assert_eq!(reserved, Error::WorkspaceField { column: "workspace_id".into() });
    for (length, is_allowed) in [(0, false), (256, true), (257, false)] {
        let workspace_id = "w".repeat(length);
        let request = Request { workspace_id: Some(&workspace_id), ..request.clone() };
        assert_eq!(decide(&relation, &request).is_ok(), is_allowed, "{length}");
    }
}

#[test]
fn arguments_are_words_of_the_contract() {
    let argument = |request: Request<'_>| match refused(&request) {
        Error::Argument { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(argument(Request { direction: Some("up"), ..request() }), "direction");
    assert_eq!(argument(Request { direction: None, ..request() }), "direction");
    assert_eq!(argument(Request { apply_as: Some("both"), ..request() }), "apply_as");
    assert_eq!(argument(Request { numbers: None, ..request() }), "numbers");
    assert_eq!(argument(Request { reads: Some("all"), ..request() }), "reads");
    assert_eq!(argument(Request { workspace_column: None, ..request() }), "workspace_column");
    assert_eq!(argument(Request { table_name: Some(""), ..request() }), "table_name");
    let (longest, longer) = ("t".repeat(128), "t".repeat(129));
    assert_eq!(argument(Request { table_name: Some(&longer), ..request() }), "table_name");
    let down = Request { table_name: Some(&longest), direction: Some("down"), ..request() };
    assert_eq!(decide(&tasks(), &down).unwrap().direction, "down");
    let owner = Request { apply_as: Some("owner"), numbers: Some("native"), ..request() };
    let attachment = decide(&tasks(), &owner).unwrap();
    assert_eq!((attachment.apply_as.as_str(), attachment.numbers.as_str()), ("owner", "native"));
}

#[test]
fn only_ordinary_permanent_tables_of_the_app_are_attached() {
    use RelationKind::{Foreign, MaterializedView, Other, Partitioned, View};
    for kind in [View, MaterializedView, Foreign, Other] {
        let error = refused_table(|relation| relation.kind = kind);
        assert!(matches!(error, Error::NotATable { .. }), "{kind:?}");
    }
    let parted = Error::Partitions { is: "partitioned" };
    assert_eq!(refused_table(|relation| relation.kind = Partitioned), parted);
    let part = Error::Partitions { is: "a partition" };
    assert_eq!(refused_table(|relation| relation.is_partition = true), part);
    for (persistence, is) in
        [(Persistence::Unlogged, "unlogged"), (Persistence::Temporary, "temporary")]
    {
        let error = refused_table(|relation| relation.persistence = persistence);
        assert_eq!(error, Error::NotPermanent { is });
    }
    assert_eq!(refused_table(|relation| relation.is_system = true), Error::SystemTable);
    assert_eq!(refused_table(|relation| relation.inherits = true), Error::Inheritance);
    assert_eq!(refused_table(|relation| relation.has_rules = true), Error::Rules);
}

#[test]
fn row_security_hides_nothing_from_devices_unless_that_is_accepted() {
    assert_eq!(refused_table(|relation| relation.has_row_security = true), Error::RowSecurity);
    let relation = Relation { has_row_security: true, ..tasks() };
    let request = Request { reads: Some("workspace"), ..request() };
    assert!(decide(&relation, &request).is_ok());
}

#[test]
fn the_key_is_equal_where_its_text_is() {
    assert_eq!(refused_table(|relation| relation.deferrable_key = None), Error::NoKey);
    let deferrable = refused_table(|relation| relation.deferrable_key = Some(true));
    assert_eq!(deferrable, Error::DeferrableKey);
    let of = |kind, is_deterministic| {
        let mut relation = tasks();
        relation.columns[0] = Column { kind, is_deterministic, ..key("id", 1) };
        decide(&relation, &request())
    };
    use Kind::{Boolean, Date, Enum, Integer, Other, Text, Timestamp, Timestamptz, Uuid};
    for kind in [Integer, Uuid, Boolean, Text, Date, Timestamp, Timestamptz, Enum] {
        assert!(of(kind, true).is_ok(), "{kind:?}");
    }
    let refused = |result: Result<_>| matches!(result, Err(Error::KeyType { .. }));
    assert!(refused(of(Other, true)) && refused(of(Text, false)));
    let generated = refused_table(|relation| relation.columns[0].generated = Generated::Stored);
    assert!(matches!(generated, Error::GeneratedColumn { role: "primary key", .. }));
    let reserved = refused_table(|relation| relation.columns[1].key_place = Some(2));
    assert!(matches!(reserved, Error::KeyReserved { role: "workspace column", .. }));
}

#[test]
fn a_workspace_is_equal_where_its_text_is() {
    let unsuitable = |error| matches!(error, Error::WorkspaceType { .. });
    let request = request();
    assert!(unsuitable(refused_column(1, |column| column.kind = Kind::Boolean, &request)));
    assert!(unsuitable(refused_column(1, |column| column.is_deterministic = false, &request)));
    let generated = refused_column(1, |column| column.generated = Generated::Stored, &request);
    assert!(matches!(generated, Error::GeneratedColumn { role: "workspace column", .. }));
    let missing = refused(&Request { workspace_column: Some("tenant"), ..request });
    assert_eq!(missing, Error::WorkspaceColumn { name: "tenant".into() });
}

#[test]
fn the_owner_is_in_a_field_that_is_text() {
    let request = Request { owner_column: Some("title"), ..request() };
    assert!(decide(&tasks(), &request).is_ok());
    let wrong = refused_column(2, |column| column.kind = Kind::Boolean, &request);
    assert!(matches!(wrong, Error::OwnerType { .. }));
    let generated = refused_column(2, |column| column.generated = Generated::Stored, &request);
    assert!(matches!(generated, Error::GeneratedColumn { role: "owner column", .. }));
    for column in ["id", "workspace_id"] {
        let error = refused(&Request { owner_column: Some(column), ..request.clone() });
        assert!(matches!(error, Error::Argument { name: "owner_column", .. }), "{column}");
    }
    let missing = refused(&Request { owner_column: Some("x"), ..request });
    assert_eq!(missing, Error::Column { name: "x".into() });
}

#[test]
fn a_deleted_column_can_be_set_and_cleared() {
    let request = Request { deleted_column: Some("gone_at"), ..request() };
    let unsuitable = |error| matches!(error, Error::DeletedType { .. });
    assert!(unsuitable(refused_column(3, |column| column.is_not_null = true, &request)));
    assert!(unsuitable(refused_column(3, |column| column.kind = Kind::Date, &request)));
    let generated = refused_column(3, |column| column.generated = Generated::Stored, &request);
    assert!(matches!(generated, Error::GeneratedColumn { role: "deleted column", .. }));
    let mut relation = tasks();
    relation.columns[3] =
        Column { is_not_null: true, has_default: true, ..column("gone_at", Kind::Boolean) };
    assert!(decide(&relation, &request).is_ok());
    let same = Request { deleted_column: Some("workspace_id"), ..request.clone() };
    assert!(matches!(refused(&same), Error::Argument { name: "deleted_column", .. }));
    let missing = refused(&Request { deleted_column: Some("x"), ..request });
    assert_eq!(missing, Error::Column { name: "x".into() });
}

#[test]
fn columns_have_one_field_each() {
    let of = |columns: &[(&str, &str)]| refused(&Request { columns: named(columns), ..request() });
    assert_eq!(of(&[("id", "id"), ("x", "x")]), Error::Column { name: "x".into() });
    let (longest, longer) = ("f".repeat(128), "f".repeat(129));
    for (field, column) in
        [("", "title"), (&longer, "title"), ("key", "id"), ("ws", "workspace_id")]
    {
        let error = of(&[("id", "id"), (field, column)]);
        assert!(matches!(error, Error::Columns { .. }), "{field}: {column}");
    }
    let columns = named(&[("id", "id"), (longest.as_str(), "title")]);
    assert!(decide(&tasks(), &Request { columns, ..request() }).is_ok());
    let reserved = of(&[("id", "id"), ("workspace_id", "title")]);
    assert_eq!(reserved, Error::WorkspaceField { column: "title".into() });
}

#[test]
fn only_what_comes_back_from_json_is_synced() {
    let obstacles = [Obstacle::CastToJson("hstore".into()), Obstacle::Unreadable("regtype".into())];
    let mut relation = tasks();
    let without = Request { columns: named(&[("id", "id")]), ..request() };
    for obstacle in obstacles {
        relation.columns[2].obstacle = Some(obstacle);
        let error = decide(&relation, &request()).unwrap_err();
        assert!(matches!(error, Error::DoesNotComeBack { .. }));
        assert!(decide(&relation, &without).is_ok());
    }
    relation.columns[2] = Column { generated: Generated::Virtual, ..column("title", Kind::Text) };
    let error = decide(&relation, &request()).unwrap_err();
    assert!(matches!(error, Error::DoesNotComeBack { .. }));
    relation.columns[2].generated = Generated::Stored;
    assert!(decide(&relation, &request()).is_ok());
}

#[test]
fn what_is_left_out_can_be_left_out_of_an_insert() {
    let without = Request { columns: named(&[("id", "id")]), ..request() };
    let not_null = |column: &mut Column| column.is_not_null = true;
    assert!(matches!(refused_column(2, not_null, &without), Error::LeftOut { .. }));
    let mut relation = tasks();
    relation.columns[2].is_not_null = true;
    assert!(decide(&relation, &request()).is_ok());
    relation.columns[2].has_default = true;
    assert!(decide(&relation, &without).is_ok());
    relation.columns[2].has_default = false;
    relation.columns[2].generated = Generated::Stored;
    assert!(decide(&relation, &without).is_ok());
}

#[test]
fn each_refusal_has_a_detail_or_a_hint_in_whole_sentences() {
    for error in [Error::NullTable, Error::NotOwner, Error::NoKey, Error::NotAttached] {
        let error = crate::error::SyncError::from(error);
        let said = error.detail().or(error.hint().map(str::to_owned)).unwrap();
        assert!(said.ends_with('.'), "{said}");
        assert_eq!(error.sqlstate().len(), 5);
    }
}

/// The messages of the notices for a table with these surroundings.
fn messages(
    relation: &Relation,
    request: &Request<'_>,
    around: &Surroundings,
) -> Vec<&'static str> {
    let candidate = Candidate { relation, request };
    let notices = candidate.notices(&candidate.decide().unwrap(), around);
    notices.iter().map(|notice| notice.message).collect()
}

#[test]
fn an_ordinary_table_is_attached_in_silence() {
    let own = UniqueKey {
        name: "k".into(),
        columns: vec!["workspace_id".into(), "title".into()],
        is_deferrable: false,
    };
    let referenced = UniqueKey { columns: vec!["title".into(), "id".into()], ..own.clone() };
    let around = Surroundings { unique_keys: vec![own, referenced], ..Surroundings::default() };
    assert!(messages(&tasks(), &request(), &around).is_empty());
}

#[test]
fn what_may_surprise_is_said_once_with_all_names() {
    let mut relation = tasks();
    relation.columns[0].is_numbered = true;
    relation.columns[1].is_not_null = false;
    let key = |name: &str, is_deferrable| UniqueKey {
        name: name.to_owned(),
        columns: vec!["title".into()],
        is_deferrable,
    };
    let around = Surroundings {
        unique_keys: vec![key("a", false), key("b", true)],
        replica_triggers: vec!["audit".into()],
        foreign_keys: Vec::new(),
    };
    let (request, candidate) = (request(), &relation);
    let candidate = Candidate { relation: candidate, request: &request };
    let notices = candidate.notices(&candidate.decide().unwrap(), &around);
    let details: Vec<_> = notices.iter().map(|notice| notice.detail.as_str()).collect();
    assert_eq!(
        details,
        [
            "Column \"id\".",
            "Column \"workspace_id\".",
            "Key \"a\", \"b\".",
            "Key \"b\".",
            "Trigger \"audit\"."
        ]
    );
}

#[test]
fn a_foreign_key_stays_within_its_workspace_or_is_told_of() {
    let mut one = tasks();
    one.columns.remove(1);
    let one_workspace = Request { workspace_id: Some("w"), ..request() };
    let told = |relation: &Relation, request: &Request<'_>, parent, columns: &[(&str, &str)]| {
        let columns = named(columns).unwrap();
        let key = ForeignKey { name: "k".into(), parent, columns };
        let around = Surroundings { foreign_keys: vec![key], ..Surroundings::default() };
        messages(relation, request, &around)
    };
    let attached = |column: Option<&str>, id: Option<&str>| Parent::Attached {
        workspace_column: column.map(str::to_owned),
        workspace_id: id.map(str::to_owned),
    };
    let alone = ["foreign key references a table that is not attached"];
    let crosses = ["foreign key may lead to another workspace"];
    let pair = [("title", "id")];
    let both = [("title", "id"), ("workspace_id", "tenant")];
    let silent: [&str; 0] = [];
    assert_eq!(told(&tasks(), &request(), Parent::NotAttached, &pair), alone);
    assert_eq!(told(&tasks(), &request(), Parent::Itself, &pair), crosses);
    let itself = [("title", "id"), ("workspace_id", "workspace_id")];
    assert_eq!(told(&tasks(), &request(), Parent::Itself, &itself), silent);
    assert_eq!(told(&tasks(), &request(), attached(Some("tenant"), None), &pair), crosses);
    assert_eq!(told(&tasks(), &request(), attached(Some("tenant"), None), &both), silent);
    assert_eq!(told(&tasks(), &request(), attached(Some("other"), None), &both), crosses);
    assert_eq!(told(&tasks(), &request(), attached(None, Some("w")), &pair), crosses);
    assert_eq!(told(&one, &one_workspace, Parent::Itself, &pair), silent);
    assert_eq!(told(&one, &one_workspace, attached(None, Some("w")), &pair), silent);
    assert_eq!(told(&one, &one_workspace, attached(None, Some("v")), &pair), crosses);
    assert_eq!(told(&one, &one_workspace, attached(Some("tenant"), None), &pair), crosses);
}
