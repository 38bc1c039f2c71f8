//! Runs jobs side by side. Most suites wait: for timeouts, for other programs, for silence. One lane is for those that
//! compute all the time, with a lower priority, so that the others keep their time limits.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// What a job takes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing may run beside it: it measures, or floods the machine.
    Alone,
    /// It mostly waits, and has time limits.
    Waits,
    /// It computes, and has none.
    Computes,
}

/// How many lanes begin with jobs that wait. A lane whose own jobs have all begun helps with the others.
const WAITING: usize = 2;

/// Runs every job once: first those that run alone, then those of each load in the given order, longest first at best.
/// Returns the results in the order in which they came. `niced`: the job is to run with a lower priority.
pub(crate) fn run<J: Send, R: Send>(jobs: Vec<(Load, J)>, play: impl Fn(J, bool) -> R + Sync) -> Vec<R> {
    let (mut alone, mut waiting, mut computing) = (Vec::new(), VecDeque::new(), VecDeque::new());
    for (load, job) in jobs {
        match load {
            Load::Alone => alone.push(job),
            Load::Waits => waiting.push_back(job),
            Load::Computes => computing.push_back(job),
        }
    }
    let mut results: Vec<R> = alone.into_iter().map(|job| play(job, false)).collect();
    let queues = Mutex::new([waiting, computing]);
    let done = Mutex::new(&mut results);
    let next = |own: usize| {
        let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
        [own, 1 - own].into_iter().find_map(|queue| Some((queues[queue].pop_front()?, queue == 1)))
    };
    let lane = |own: usize| {
        while let Some((job, computes)) = next(own) {
            let result = play(job, computes);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    std::thread::scope(|scope| {
        for own in [0; WAITING].into_iter().chain([1]) {
            scope.spawn(move || lane(own));
        }
    });
    results
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_runs_once_and_some_alone() {
        let loads = [Load::Waits, Load::Alone, Load::Computes, Load::Waits, Load::Alone, Load::Computes];
        let jobs: Vec<_> = loads.into_iter().zip(0..).cycle().take(loads.len()).collect();
        let running = AtomicUsize::new(0);
        let mut done = run(jobs, |job: usize, computes| {
            let beside = running.fetch_add(1, Ordering::SeqCst);
            let alone = loads[job] == Load::Alone;
            assert!(!alone || beside == 0);
            assert_eq!(computes, loads[job] == Load::Computes);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            job
        });
        assert!(done[..2].iter().all(|&job| loads[job] == Load::Alone));
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 5]);
    }
}
