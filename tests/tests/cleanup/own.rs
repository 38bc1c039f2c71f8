//! `lbr cleanup`: lbr's own pins and attachments, beside those of other programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::netns::Netns;
use lbr_tests::topology::{Bed, PodNetwork};

use crate::{cleanup, output};

/// A filter of another program: lbr's program in another place.
fn foreign_filter(ns: &Netns, link: &str, priority: u16, handle: u16) {
    ns.run(|| {
        let mut ebpf = aya::Ebpf::load(lbr_agent::dataplane::OBJECT)?;
        let program: &mut SchedClassifier = ebpf.program_mut("from_pod").unwrap().try_into()?;
        program.load()?;
        let options = NlOptions { priority, handle: TcHandle::new(0, handle), classid: None };
        let id =
            program.attach_with_options(link, TcAttachType::Ingress, TcAttachOptions::Netlink(options))?;
        std::mem::forget(program.take_link(id)?);
        Ok(())
    })
    .unwrap();
}

/// Filters and programs at all links of a namespace.
fn attached(ns: &Netns, links: &[&str]) -> String {
    let mut text = output(ns.command("tc").unwrap().args(["qdisc", "show"]));
    for link in links {
        for side in ["ingress", "egress"] {
            text += &format!("{link} {side}:\n");
            text += &output(ns.command("tc").unwrap().args(["filter", "show", "dev", link, side]));
        }
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            let programs = ns.run(|| Ok(SchedClassifier::query_tcx(link, side)?.1)).unwrap();
            text += &format!("tcx: {:?}\n", programs.iter().map(|p| p.id()).collect::<Vec<_>>());
        }
    }
    text
}

/// Waits for the programs at the uplink, which are attached after those at the links of pods.
fn until_attached(ns: &Netns, link: &str, attach: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let is_there = |text: &str| match attach {
        "tcx" => text.matches("tcx: [").count() - text.matches("tcx: []").count() == 2,
        _ => text.contains("from_netdev") && text.contains("to_netdev"),
    };
    while !is_there(&attached(ns, &[link])) {
        assert!(std::time::Instant::now() < end, "{link}: {}", attached(ns, &[link]));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn cgroup_programs(cgroup: &Path) -> usize {
    output(Command::new("bpftool").args(["-j", "cgroup", "show"]).arg(cgroup)).matches("\"id\"").count()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // The kernel's own, in the root of each BPF filesystem.
    names.retain(|name| !name.ends_with(".debug"));
    names.sort();
    names
}

fn make_map(path: &Path) {
    let mut command = Command::new("bpftool");
    command.args(["map", "create"]).arg(path);
    output(command.args(["type", "hash", "key", "4", "value", "4", "entries", "1", "name", "foreign"]));
}

/// `connect`, `sendmsg`, `recvmsg`, `getpeername` and `bind`, of both families.
const CGROUP_PROGRAMS: usize = 10;

fn all_goes(attach: &str) {
    let mut bed = Bed::new(&format!("co{attach}")).unwrap();
    let node = bed.add_node("n").unwrap();
    let pod = bed.add_pod(&node, "p", PodNetwork::Routed.into()).unwrap();
    let other = bed.add_pod(&node, "q", PodNetwork::Routed.into()).unwrap();
    let ns = node.ns.clone();
    ns.ip(["link add spare type bridge"]).unwrap();
    let links = [pod.link.as_str(), other.link.as_str(), "spare", "eth0"];

    // Of other programs: a filter at a pod's link with another priority; a filter with lbr's priority and another
    // handle at a link that lbr does not use, and an empty clsact there; and pins.
    output(ns.command("tc").unwrap().args(["qdisc", "add", "dev", links[0], "clsact"]));
    foreign_filter(&ns, links[0], 60, 1);
    output(ns.command("tc").unwrap().args(["qdisc", "add", "dev", "spare", "clsact"]));
    foreign_filter(&ns, "spare", 50, 77);
    let bpffs = bed.bpffs().unwrap();
    make_map(&bpffs.join("foreign"));
    fs::create_dir(bpffs.join("folder")).unwrap();
    make_map(&bpffs.join("folder/foreign"));
    let cgroup = bed.cgroup().unwrap().path().to_owned();
    let before = attached(&ns, &links);

    let arguments = ["--attach", attach].map(str::to_owned).to_vec();
    let options = AgentOptions { sockets: true, arguments, ..AgentOptions::default() };
    let mut agent = Agent::start_with(&mut bed, &node, &options, &[]).unwrap();
    agent
        .wait_for("links", std::time::Duration::from_secs(20), |links| {
            links.as_array().is_some_and(|l| l.len() == 2)
        })
        .unwrap();
    until_attached(&ns, "eth0", attach);
    let full = attached(&ns, &links);
    assert_ne!(full, before);
    assert_eq!(cgroup_programs(&cgroup), CGROUP_PROGRAMS);
    let pins = agent.bpffs().to_owned();
    let flags = ["--bpffs", pins.to_str().unwrap()];

    // It refuses while an agent runs; a dry run is allowed.
    let (ok, said, errors) = cleanup(&ns, &flags);
    assert!(!ok && said.is_empty() && errors.contains("an lbr agent uses"), "{said}{errors}");
    let (ok, would, errors) = cleanup(&ns, &[&flags[..], &["--dry-run"]].concat());
    assert!(
        ok && would.contains(&format!("would remove: map, pinned at {}/frontends\n", pins.display())),
        "{would}{errors}"
    );
    assert_eq!((attached(&ns, &links), cgroup_programs(&cgroup)), (full.clone(), CGROUP_PROGRAMS));

    // It also refuses with another folder, where a running agent cannot be detected.
    let nowhere = bpffs.join("nowhere");
    let (ok, said, errors) = cleanup(&ns, &["--bpffs", nowhere.to_str().unwrap()]);
    assert!(ok && said.contains("left: clsact filter from_pod") == (attach == "clsact"), "{said}{errors}");
    assert_eq!(attached(&ns, &links), full);

    // The agent was killed during a start, with maps of another version.
    agent.kill();
    fs::remove_file(pins.join("frontends")).unwrap();
    fs::remove_file(pins.join("state")).unwrap();
    make_map(&pins.join("state"));
    make_map(&pins.join("of_another_version"));
    fs::rename(pins.join("attached/connect4"), pins.join("attached/connect4_new")).unwrap();
    let (ok, did, errors) = cleanup(&ns, &flags);
    assert!(ok, "{errors}");
    assert_eq!(attached(&ns, &links), before, "{did}");
    assert_eq!(cgroup_programs(&cgroup), 0, "{did}");
    assert_eq!(names(&bpffs), ["folder", "foreign"]);
    assert!(bpffs.join("folder/foreign").exists());
    let what = match attach {
        "tcx" => format!("removed: tcx program at {}, pinned at", links[1]),
        _ => format!("removed: clsact filter to_pod at {}\n", links[1]),
    };
    for line in [
        &what,
        "removed: cgroup program, pinned at",
        "of_another_version\n",
        &format!("removed: name of its last agent, at {}/owner\n", pins.display()),
        &format!("removed: last report of its agent, at {}/report\n", pins.display()),
        &format!("removed: folder {}\n", pins.display()),
    ] {
        assert!(did.contains(line), "{line}: {did}");
    }
    let (ok, again, errors) = cleanup(&ns, &flags);
    assert!(ok && again == "nothing of lbr is on this node\n", "{again}{errors}");

    // The agent starts as on a fresh node. `--force` removes its state while it runs.
    agent.run().unwrap();
    let (ok, did, errors) = cleanup(&ns, &[&flags[..], &["--force"]].concat());
    assert!(ok && did.contains("removed: folder"), "{did}{errors}");
    assert_eq!(names(&bpffs), ["folder", "foreign"]);
    agent.kill();
}

#[test]
fn tcx() {
    all_goes("tcx");
}

#[test]
fn clsact() {
    all_goes("clsact");
}

/// A wrong --bpffs removes nothing of other programs.
#[test]
fn folders_of_others_are_refused() {
    let mut bed = Bed::new("cof").unwrap();
    let ns = bed.add_node("n").unwrap().ns;
    let bpffs = bed.bpffs().unwrap();
    fs::create_dir(bpffs.join("folder")).unwrap();
    make_map(&bpffs.join("folder/foreign"));
    fs::create_dir(bpffs.join("lbr")).unwrap();
    make_map(&bpffs.join("lbr/state"));
    fs::create_dir(bpffs.join("lbr/tc")).unwrap();
    make_map(&bpffs.join("lbr/tc/foreign"));
    let at = |path: &Path| cleanup(&ns, &["--bpffs", path.to_str().unwrap()]);
    for (path, expected) in [
        (bpffs.clone(), "is the BPF filesystem itself"),
        (bpffs.join("folder"), "holds no map of lbr, but foreign"),
        (bpffs.join("folder/foreign"), "is no folder"),
        (std::env::temp_dir(), "is not on a BPF filesystem"),
    ] {
        let (ok, said, errors) = at(&path);
        assert!(!ok && errors.contains(expected), "{}: {said}{errors}", path.display());
    }
    let (ok, said, _) = at(&bpffs.join("nowhere"));
    assert!(ok && said.contains("nothing of lbr"), "{said}");
    let (ok, said, errors) = at(&bpffs.join("lbr"));
    assert!(
        ok && said.contains("left: folder") && said.contains("lbr made none of that name"),
        "{said}{errors}"
    );
    assert!(bpffs.join("lbr/tc/foreign").exists() && bpffs.join("folder/foreign").exists());
    assert!(!bpffs.join("lbr/state").exists());
}
