//! Time limits of tests.

use std::sync::LazyLock;
use std::time::Duration;

/// The limit for something that takes `usual` at most. `LBR_SLOW=N` means that this machine (an emulated one, for
/// instance) is N times as slow as others: then the limit is N times as long.
pub fn limit(usual: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| factor(std::env::var("LBR_SLOW").ok().as_deref()));
    usual * *FACTOR
}

/// The same in milliseconds.
pub fn millis(usual: u64) -> Duration {
    limit(Duration::from_millis(usual))
}

fn factor(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_only_with_lbr_slow() {
        assert_eq!([None, Some("8"), Some("0"), Some("fast")].map(factor), [1, 8, 1, 1]);
    }
}
