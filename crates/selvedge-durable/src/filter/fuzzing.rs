//! What must hold of every filter and every message.

use super::{Seen, parse, parse_text, show};

/// Reads `text` as a filter and asks it for a message of `payload`.
///
/// # Panics
///
/// If a filter that was read is shown as another one, or two ways of asking differ.
pub fn filter(text: &str, payload: &[u8]) {
    let Ok(filter) = parse_text(text) else { return };
    let again = parse(&show(&filter));
    assert_eq!(again.ok().as_ref(), Some(&filter), "{text}");
    let headers = [("ce-type".to_owned(), String::from_utf8_lossy(payload).into_owned())];
    let asked = |max| filter.matches(&Seen::parts(Some(text), &headers, Some(payload), max));
    assert_eq!(asked(payload.len()), asked(usize::MAX));
}
