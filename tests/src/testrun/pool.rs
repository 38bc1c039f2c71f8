//! Loaded objects that many tests use, one after the other: a load takes seconds, a cleaning an instant.

use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::Result;

use super::Programs;
use super::pristine::Pristine;

/// Lends loaded objects. As long as tests run one after the other, it loads one for each set of options.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<Loaded>>,
}

struct Loaded {
    programs: Programs,
    pristine: Pristine,
    options: u32,
    /// The last user.
    user: String,
}

/// A loaded object for one test. One thread only: it moves that thread into the object's network namespace until it is
/// dropped.
pub struct Shared<'a> {
    pool: &'a Pool,
    loaded: ManuallyDrop<Loaded>,
}

impl Pool {
    /// The pool of this process. Its objects are removed when the process ends. If the process is killed, the next
    /// call of [`crate::topology::reap`] removes them.
    pub fn of_process() -> &'static Self {
        static POOL: Pool = Pool { idle: Mutex::new(Vec::new()) };
        static AT_EXIT: Once = Once::new();
        extern "C" fn clear() {
            // A panic must not leave it.
            let _ = catch_unwind(|| POOL.clear());
        }
        AT_EXIT.call_once(|| {
            // SAFETY: the function may be called at any time, and on any thread. If it cannot be registered, `reap`
            // does its work.
            let _ = unsafe { libc::atexit(clear) };
        });
        &POOL
    }

    /// Lends an object with these [`lbr_common::maps::config::options`], in its state right after loading: an idle
    /// one, which is cleaned first, or a new one. If cleaning fails, that is printed, and a new one is loaded.
    pub fn take(&self, user: &str, options: u32) -> Result<Shared<'_>> {
        let mut loaded = match self.cleaned(user, options) {
            Some(loaded) => loaded,
            None => Loaded::new(options)?,
        };
        user.clone_into(&mut loaded.user);
        Ok(Shared { pool: self, loaded: ManuallyDrop::new(loaded) })
    }

    /// Removes all idle ones.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.lock());
        drop(idle);
    }

    fn cleaned(&self, user: &str, options: u32) -> Option<Loaded> {
        let mut loaded = {
            let mut idle = self.lock();
            let found = idle.iter().position(|loaded| loaded.options == options)?;
            idle.swap_remove(found)
        };
        match loaded.clean() {
            Ok(()) => Some(loaded),
            Err(error) => {
                let last = &loaded.user;
                say(&format!(
                    "{user} has the object loaded anew, as it cannot be cleaned after {last}: {error:#}"
                ));
                None
            }
        }
    }

    /// Held only briefly, without code that could panic.
    fn lock(&self) -> MutexGuard<'_, Vec<Loaded>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn new(options: u32) -> Result<Self> {
        let mut programs = Programs::load_without_links("shared", options)?;
        let pristine = Pristine::record(&mut programs)?;
        Ok(Self { programs, pristine, options, user: String::new() })
    }

    fn clean(&mut self) -> Result<()> {
        self.programs.sandbox.enter_again()?;
        self.pristine.restore(&mut self.programs)
    }
}

impl Deref for Shared<'_> {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        &self.loaded.programs
    }
}

impl DerefMut for Shared<'_> {
    fn deref_mut(&mut self) -> &mut Programs {
        &mut self.loaded.programs
    }
}

impl Drop for Shared<'_> {
    /// Gives it back, as it is. A test that panics does so too.
    fn drop(&mut self) {
        // SAFETY: nothing uses it after this.
        let mut loaded = unsafe { ManuallyDrop::take(&mut self.loaded) };
        loaded.programs.sandbox.leave();
        self.pool.lock().push(loaded);
    }
}

/// Prints a line on standard output, past the test harness, which hides the output of passed tests.
pub fn say(line: &str) {
    // After the name of the running test. A closed output does not matter.
    let _ = writeln!(std::io::stdout().lock(), "\n{line}");
}
