//! `demo`: lbr's main job in a minute.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;

use clap::Parser;
use lbr_tests::demo::{Source, Story, play};
use lbr_tests::interrupt;

/// Show lbr at work: pods as network namespaces, a minute.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// lbr watches a test API server, and the real kubectl changes objects, in place of a folder of YAML.
    #[arg(long)]
    kubernetes: bool,
}

const TITLE: &str =
    "lbr: Services and NetworkPolicies in a folder of YAML become what the kernel does with packets";

const TITLE_KUBERNETES: &str =
    "lbr: Services and NetworkPolicies of an API server become what the kernel does with packets";

const NEXT: &str = "
All of it worked, and everything is removed again. What to try next:
   cargo xtask test                        every test, on the kernel of this machine
   cargo xtask demo --kubernetes           the same with an API server and kubectl
   cargo xtask bench pod-to-pod            how fast it is, next to no Service at all and to nftables
   lbr run --manifests DIR --node-name N   the same on your own YAML
   lbr.dev/mode: audit                     this annotation makes a NetworkPolicy report and deny nothing
   lbr monitor --audit                     prints what it would have denied, as it happens
   ARCHITECTURE.md                         how it works inside";

fn main() -> ExitCode {
    let say = |line: &str| println!("{line}");
    let (source, title) = match Cli::parse().kubernetes {
        false => (Source::Folder, TITLE),
        true => (Source::Kubernetes, TITLE_KUBERNETES),
    };
    say(title);
    let mut story = Story::new(&say);
    match interrupt::watch().and_then(|()| play(&mut story, source)) {
        Ok(()) => {
            let is_news = |line: &&str| source == Source::Folder || !line.contains("--kubernetes");
            NEXT.lines().filter(is_news).for_each(say);
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
