//! `demo`: lbr's main job in a minute.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;

use lbr_tests::demo::{Story, play};
use lbr_tests::interrupt;

const TITLE: &str =
    "lbr: Services and NetworkPolicies in a folder of YAML become what the kernel does with packets";

const NEXT: &str = "
All of it worked, and everything is removed again. What to try next:
   cargo xtask test                        every test, on the kernel of this machine
   cargo xtask bench pod-to-pod            how fast it is, next to no Service at all and to nftables
   lbr run --manifests DIR --node-name N   the same on your own YAML
   lbr.dev/mode: audit                     this annotation makes a NetworkPolicy report and deny nothing
   lbr monitor --audit                     prints what it would have denied, as it happens
   ARCHITECTURE.md                         how it works inside";

fn main() -> ExitCode {
    let say = |line: &str| println!("{line}");
    say(TITLE);
    let mut story = Story::new(&say);
    match interrupt::watch().and_then(|()| play(&mut story)) {
        Ok(()) => {
            say(NEXT);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "\nThe demo failed at {}: {error:#}\nEverything it made is removed again.",
                story.step()
            );
            ExitCode::FAILURE
        }
    }
}
