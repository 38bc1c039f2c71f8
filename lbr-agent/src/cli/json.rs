//! JSON for programs: the rows as they are.

use serde::Serialize;

/// An array of objects, indented.
pub(super) fn render<T: Serialize>(rows: &[T]) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(rows)?;
    text.push('\n');
    Ok(text)
}
