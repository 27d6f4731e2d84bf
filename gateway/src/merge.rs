//! Replies of several servers as one.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workspace {
    workspace_id: String,
}

/// Of sync_list_workspaces or sync_status, with the numbers of the servers: workspaces in the
/// order of the replies, each once and byte for byte. One that moves is listed by both, and counts where it is at home.
/// Counters are added up.
pub fn workspaces(
    replies: &[(usize, String)],
    is_at_home: impl Fn(&str, usize) -> bool,
) -> serde_json::Result<String> {
    let mut listed: Vec<&RawValue> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut counters: Option<Option<BTreeMap<String, i64>>> = None;
    for (number, reply) in replies {
        let reply: HashMap<&str, &RawValue> = serde_json::from_str(reply)?;
        if let Some(counted) = reply.get("counters") {
            let sums = counters.get_or_insert_default();
            for (name, count) in
                serde_json::from_str::<Option<BTreeMap<String, i64>>>(counted.get())?
                    .into_iter()
                    .flatten()
            {
                *sums.get_or_insert_default().entry(name).or_default() += count;
            }
        }
        let workspaces = reply.get("workspaces").map_or("[]", |listed| listed.get());
        for workspace in serde_json::from_str::<Vec<&RawValue>>(workspaces)? {
            let Workspace { workspace_id } = serde_json::from_str(workspace.get())?;
            match places.get(&workspace_id) {
                Some(place) if is_at_home(&workspace_id, *number) => listed[*place] = workspace,
                Some(_) => {}
                None => {
                    places.insert(workspace_id, listed.len());
                    listed.push(workspace);
                }
            }
        }
    }
    let counters = counters.map(|sums| to_raw_value(&sums)).transpose()?;
    let workspaces = to_raw_value(&listed)?;
    let parts = counters.map(|sums| ("counters", sums)).into_iter();
    serde_json::to_string(&parts.chain([("workspaces", workspaces)]).collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(replies: &[&str], home: usize) -> String {
        let replies = replies.iter().map(|reply| reply.to_string()).enumerate();
        let replies: Vec<(usize, String)> = replies.collect();
        workspaces(&replies, |_, number| number == home).unwrap()
    }

    #[test]
    fn a_workspace_that_moves_counts_where_it_is_at_home() {
        let (a, b, c) = (
            r#"{"workspaces":[{"workspaceId":"w" ,"serverVersion":3},{"workspaceId":"x"}]}"#,
            r#"{"workspaces":[{"workspaceId":"y"},{"workspaceId":"w","serverVersion":5}]}"#,
            r#"{"workspaces":[]}"#,
        );
        for (home, version) in [
            (0, r#" ,"serverVersion":3"#),
            (1, r#","serverVersion":5"#),
            (2, r#" ,"serverVersion":3"#),
        ] {
            let expected = format!(
                r#"{{"workspaces":[{{"workspaceId":"w"{version}}},{{"workspaceId":"x"}},{{"workspaceId":"y"}}]}}"#
            );
            assert_eq!(merged(&[a, b, c], home), expected);
        }
    }

    #[test]
    fn counters_are_added_up_where_a_server_counts() {
        let (none, some) = (
            r#"{"counters" : null, "workspaces" : []}"#,
            r#"{"counters" : {"pushes":2,"pulls":1}, "workspaces" : []}"#,
        );
        assert_eq!(merged(&[none, none], 0), r#"{"counters":null,"workspaces":[]}"#);
        let expected = r#"{"counters":{"pulls":2,"pushes":4},"workspaces":[]}"#;
        assert_eq!(merged(&[some, none, some], 0), expected);
    }
}
