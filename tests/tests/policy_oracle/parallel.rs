//! Many seeds on all processors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use lbr_tests::oracle::Mismatch;

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// The first seed.
pub(crate) fn first_seed() -> u64 {
    setting("LBR_ORACLE_SEED", 1)
}

/// Runs `test` with `count` seeds; panics with the result of the first one that fails.
pub(crate) fn for_seeds(count: u64, test: impl Fn(u64) -> Option<String> + Sync) {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None));
    let first = first_seed();
    let work = || {
        while failed.lock().unwrap().is_none() {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            let seed = first.wrapping_add(n);
            if let Some(what) = test(seed) {
                failed.lock().unwrap().get_or_insert((seed, what));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, Into::into);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    if let Some((seed, what)) = failed.into_inner().unwrap() {
        panic!("seed {seed} (LBR_ORACLE_SEED={seed} runs it again):\n{what}");
    }
}

/// A panic counts as a mismatch.
pub(crate) fn no_panic<T>(f: impl FnOnce() -> Result<T, Mismatch>) -> Result<T, Mismatch> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        Err(Mismatch { tuple: None, what: format!("panicked: {text}") })
    })
}
