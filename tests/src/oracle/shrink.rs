//! Reduces a failing case to a small one that still fails.

use serde_json::Value;

use super::{Case, convert, generate};

/// Attempts, at most: a reader needs a small case, not the smallest.
const ATTEMPTS: usize = 20_000;

/// Removes objects, and then fields and list items, as long as `fails` holds. The result is a cluster for which the
/// specification has an answer, and of which lbr refuses no more objects than before.
pub fn shrink(case: &Case, fails: impl Fn(&Case) -> bool) -> Case {
    let allowed = refused(case).unwrap_or(0);
    let mut attempts = 0;
    let mut still_fails = |case: &Case| {
        attempts += 1;
        attempts <= ATTEMPTS
            && generate::is_valid(case)
            && refused(case).is_some_and(|refused| refused <= allowed)
            && fails(case)
    };
    let mut small = case.clone();
    loop {
        let before = small.clone();
        let mut without_links = small.clone();
        without_links.node.links.links.clear();
        without_links.node.links.addresses.clear();
        if small.node.links.links.is_empty() || !still_fails(&without_links) {
            for i in (0..small.objects.len()).rev() {
                shrink_object(&mut small, i, &mut still_fails);
            }
        } else {
            small = without_links;
        }
        if small == before {
            return small;
        }
    }
}

fn shrink_object(small: &mut Case, i: usize, still_fails: &mut impl FnMut(&Case) -> bool) {
    let mut without = small.clone();
    without.objects.remove(i);
    if still_fails(&without) {
        *small = without;
        return;
    }
    let mut next = 0;
    while let Some(object) = smaller(&small.objects[i]).into_iter().nth(next) {
        let mut candidate = small.clone();
        candidate.objects[i] = object;
        if still_fails(&candidate) {
            *small = candidate;
        } else {
            next += 1;
        }
    }
}

/// The number of objects that lbr refuses; `None` if it cannot read one at all.
fn refused(case: &Case) -> Option<usize> {
    case.objects.iter().try_fold(0, |sum, object| Some(sum + usize::from(convert(object).ok()?.1)))
}

/// The value with one part removed, in every way; the largest parts first.
fn smaller(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Array(items) => {
            for i in 0..items.len() {
                let mut items = items.clone();
                items.remove(i);
                all.push(items.into());
            }
            for (i, item) in items.iter().enumerate() {
                for item in smaller(item) {
                    let mut items = items.clone();
                    items[i] = item;
                    all.push(items.into());
                }
            }
        }
        Value::Object(fields) => {
            for key in fields.keys() {
                let mut fields = fields.clone();
                fields.remove(key);
                all.push(fields.into());
            }
            for (key, field) in fields {
                for field in smaller(field) {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), field);
                    all.push(fields.into());
                }
            }
        }
        _ => {}
    }
    all
}
