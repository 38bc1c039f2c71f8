//! One world for all cases. It takes seconds to make, so it is made once, and lasts as long as the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::world::World;

static WORLD: Mutex<Option<Result<World, String>>> = Mutex::new(None);
static ENDING: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicBool = AtomicBool::new(false);

/// Runs with the world, which no other test uses meanwhile.
pub(crate) fn with<T>(f: impl FnOnce(&World) -> T) -> T {
    static KEEPER: Once = Once::new();
    KEEPER.call_once(|| {
        // A thread of its own: agents are killed when the thread that started them ends, and a test's thread may end.
        // It also removes the world, so that no namespace is left behind.
        std::thread::spawn(keep);
        // SAFETY: the function takes nothing, returns nothing, and does not unwind.
        unsafe { libc::atexit(end) };
    });
    loop {
        let guard = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(Ok(world)) => return f(world),
            Some(Err(error)) => panic!("{error}"),
            None => drop(guard),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn keep() {
    let world = World::start("pol", &[]).map_err(|error| format!("{error:#}"));
    *WORLD.lock().unwrap_or_else(PoisonError::into_inner) = Some(world);
    while !ENDING.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(WORLD.lock().unwrap_or_else(PoisonError::into_inner).take());
    ENDED.store(true, Ordering::Release);
}

/// Runs while the process exits: it must not use thread-local storage, which may be gone.
extern "C" fn end() {
    ENDING.store(true, Ordering::Release);
    while !ENDED.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
