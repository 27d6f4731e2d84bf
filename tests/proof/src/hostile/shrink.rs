//! The smallest batch that still does what a larger one did (delta debugging).

use serde_json::value::RawValue;

/// How often the question may be asked in all.
const MAX_ATTEMPTS: usize = 600;

/// Leaves out ops, then bytes, as long as `fails` says yes.
pub fn smallest(batch: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut attempts = 0;
    let mut fails = |candidate: &[u8]| {
        attempts += 1;
        attempts <= MAX_ATTEMPTS && fails(candidate)
    };
    let mut batch = batch.to_vec();
    let elements: Option<Vec<Vec<u8>>> = serde_json::from_slice::<Vec<&RawValue>>(&batch)
        .ok()
        .map(|all| all.iter().map(|raw| raw.get().as_bytes().to_vec()).collect());
    if let Some(elements) = elements
        && fails(&join(&elements))
    {
        batch = join(&without_parts(elements, |kept| fails(&join(kept))));
    }
    without_parts(batch, |kept| fails(kept))
}

fn join(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut text = b"[".to_vec();
    text.extend(elements.join(&b","[..]));
    text.push(b']');
    text
}

/// Drops halves, quarters, ... single items for as long as the rest fails.
fn without_parts<T: Clone>(mut items: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut size = items.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < items.len() {
            let end = (start + size).min(items.len());
            let rest: Vec<T> = items[..start].iter().chain(&items[end..]).cloned().collect();
            if fails(&rest) {
                items = rest;
            } else {
                start = end;
            }
        }
        size /= 2;
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let batch = br#"[{"a":1}, {"b":"xyz"},[2,3]]"#;
        let found = smallest(batch, |text| {
            text.windows(1).any(|it| it == b"y")
                && serde_json::from_slice::<&RawValue>(text).is_ok()
        });
        // Brackets go in pairs, so they stay.
        assert_eq!(String::from_utf8_lossy(&found), r#"[{"":"y"}]"#);
    }
}
