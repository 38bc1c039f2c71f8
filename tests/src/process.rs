//! Child processes that end with their guard.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A child process, killed by id when dropped, and by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
}

impl Proc {
    /// Starts it. The calling thread must outlive the child: see `PR_SET_PDEATHSIG` in `prctl(2)`.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let what = text(command);
        die_with_parent(command);
        let child = command.spawn().with_context(|| format!("start `{what}`"))?;
        Ok(Self { child, what })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for `{}`", self.what))
    }

    /// Waits until it ends.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("`{}` has not ended after {timeout:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.id())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("signal `{}`", self.what))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // Both fail only if the child has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the kernel kill the child when the starting thread ends, so that nothing outlives a killed test.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only the system call prctl runs: no allocation, no lock.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Runs a command to its end; the error has its output.
pub fn run(command: &mut Command) -> Result<Output> {
    let what = text(command);
    let output = command.output().with_context(|| format!("start `{what}`"))?;
    if output.status.success() {
        return Ok(output);
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    bail!("`{what}`: {}\n{}{}", output.status, out.trim_end(), err.trim_end())
}

/// The command line, for messages.
fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
