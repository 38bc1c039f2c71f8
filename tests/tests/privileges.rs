//! The rights of lbr on a node: it runs with those of `deploy/base/daemonset.yaml`, and needs each of them.
//!
//! Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::EbpfLoader;
use aya::programs::Program;
use lbr_agent::dataplane::{OBJECT, find_cgroup2};
use lbr_common::addr::Family;
use lbr_tests::agent::{Agent, AgentOptions, binary};
use lbr_tests::manifests::{EndpointSlice, Service, join};
use lbr_tests::probe::{Client, Server};
use lbr_tests::topology::{Bed, Cgroup, Node, Pod, PodNetwork};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(5);

/// Capabilities in the manifest, as setpriv(1) and the kernel spell them.
fn rights() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/daemonset.yaml");
    let daemon: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let container = &daemon["spec"]["template"]["spec"]["containers"][0];
    let add = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    add.iter().map(|name| name.as_str().unwrap().to_lowercase()).collect()
}

/// `setpriv` with these capabilities only, as a container runtime sets them.
fn setpriv(rights: &[String]) -> Vec<String> {
    let only = rights.iter().fold("-all".to_owned(), |all, right| format!("{all},+{right}"));
    let words = ["setpriv", "--bounding-set", &only, "--inh-caps", &only, "--ambient-caps", &only];
    let more = ["--no-new-privs", "--clear-groups", "--reuid=0", "--regid=0"];
    words.into_iter().chain(more).map(str::to_owned).collect()
}

fn addresses() -> [IpAddr; 2] {
    ["10.96.0.1", "fd00:10:96::1"].map(|ip| ip.parse().unwrap())
}

/// A Service `web`, port 80, with these pods.
fn web(pods: &[&Pod]) -> String {
    let service = Service::new("web", &addresses()).port("tcp", "TCP", 80, PORT).port("udp", "UDP", 80, PORT);
    let slices = Family::ALL.map(|family| {
        let slice = EndpointSlice::new(if family.is_v6() { "web-v6" } else { "web-v4" }, "web", family);
        let slice = slice.port("tcp", "TCP", PORT).port("udp", "UDP", PORT);
        slice.addresses(pods.iter().map(|pod| pod.address(family))).yaml()
    });
    join([service.yaml()].into_iter().chain(slices))
}

/// A node with a client's pod and a server's.
fn stage(name: &str) -> (Bed, Node, Pod, Pod, Server) {
    let mut bed = Bed::new(name).unwrap();
    let node = bed.add_node("node").unwrap();
    let client = bed.add_pod(&node, "client", PodNetwork::Routed.into()).unwrap();
    let backend = bed.add_pod(&node, "backend", PodNetwork::Routed.into()).unwrap();
    let server = Server::pod(&backend, PORT).unwrap();
    (bed, node, client, backend, server)
}

fn asks(client: &Client, expected: &Pod) {
    for ip in addresses() {
        let to = SocketAddr::new(ip, 80);
        assert_eq!(client.tcp(to).unwrap().name, expected.name, "{to}/TCP");
        assert_eq!(client.udp(to).unwrap().name, expected.name, "{to}/UDP");
    }
}

/// Loads, attaches, serves pods and processes of the node, follows changes, and takes over after a restart.
fn enough(attach: &str) {
    let (mut bed, node, client, backend, _server) = stage(&format!("enough-{attach}"));
    let arguments = ["--attach".to_owned(), attach.to_owned()].to_vec();
    let options = AgentOptions { sockets: true, arguments, through: setpriv(&rights()), kubeconfig: None };
    let mut agent = Agent::start_with(&mut bed, &node, &options, &[("web.yaml", web(&[&backend]))]).unwrap();
    let linked = |count: usize| {
        move |links: &serde_json::Value| links.as_array().is_some_and(|links| links.len() == count)
    };
    agent.wait_for("links", SOON, linked(2)).unwrap();

    let status = fs::read_to_string(format!("/proc/{}/status", agent.id().unwrap())).unwrap();
    let held = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap().count_ones() as usize
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(held(set), rights().len(), "{set}\n{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");

    let process = Client::new(&node.ns).cgroup(&bed.cgroup().unwrap());
    asks(&Client::new(&client.ns), &backend);
    asks(&process, &backend);
    private(agent.bpffs());
    status_is_whole(&node, agent.bpffs(), attach);
    let connected = process.udp_socket(Family::V4).unwrap();
    connected.connect((addresses()[0], 80)).unwrap();

    let other = bed.add_pod(&node, "other", PodNetwork::Routed.into()).unwrap();
    let _other_server = Server::pod(&other, PORT).unwrap();
    agent.write("web.yaml", &web(&[&other])).unwrap();
    agent.wait_for("links", SOON, linked(3)).unwrap();
    let moved = |shown: &serde_json::Value| shown.to_string().contains(&other.v6.to_string());
    agent.wait_for("services", SOON, moved).unwrap();
    asks(&Client::new(&client.ns), &other);
    let error = connected.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "its endpoint is gone: {error}");

    agent.kill();
    agent.run().unwrap();
    asks(&Client::new(&client.ns), &other);
    asks(&process, &other);
    bed.remove_pod(&other).unwrap();
    agent.wait_for("links", SOON, linked(2)).unwrap();
    agent.stop().unwrap();
    private(agent.bpffs());
}

/// `lbr status` needs no more rights than the agent: it is run in its container.
fn status_is_whole(node: &Node, bpffs: &Path, attach: &str) {
    let words = setpriv(&rights());
    let mut command = node.ns.command(&words[0]).unwrap();
    command.args(&words[1..]).arg(binary().unwrap()).args(["status", "-o", "json", "--bpffs"]).arg(bpffs);
    let output = lbr_tests::process::run(&mut command).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["agent"]["state"], "running");
    assert_eq!((&status["object"]["same"], &status["object"]["confirmed"]), (&true.into(), &true.into()));
    assert_eq!((&status["links"][attach], &status["socket_programs"]), (&2.into(), &10.into()), "{status:#}");
}

/// Folders 0700, pins 0600, all of them root's.
fn private(dir: &Path) {
    let mut pins = 0;
    for folder in [dir.to_owned(), dir.join("attached")] {
        let about = fs::metadata(&folder).unwrap();
        assert_eq!((about.permissions().mode() & 0o7777, about.uid()), (0o700, 0), "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            if about.is_file() {
                let mode = about.permissions().mode() & 0o7777;
                assert_eq!((mode, about.uid()), (0o600, 0), "{}", entry.path().display());
                pins += 1;
            }
        }
    }
    assert!(pins > 20, "only {pins} pins in {}", dir.display());
}

#[test]
fn the_manifests_rights_are_enough_with_tcx() {
    enough("tcx");
}

#[test]
fn the_manifests_rights_are_enough_with_clsact() {
    enough("clsact");
}

/// The output of `lbr run` when it cannot start.
fn refusal(node: &Node, bpffs: &Path, through: &[String]) -> String {
    let manifests = bpffs.parent().unwrap().parent().unwrap();
    // If it does start, it does not end by itself.
    let mut command = node.ns.command("timeout").unwrap();
    command.arg("20").args(through).arg(binary().unwrap());
    command.args(["run", "--node-name", "node", "--socket-lb", "off", "--manifests"]).arg(manifests);
    let output = command.arg("--bpffs").arg(bpffs).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_missing_right_is_named_before_anything_is_touched() {
    let mut bed = Bed::new("missing").unwrap();
    let node = bed.add_node("node").unwrap();
    let bpffs = bed.bpffs().unwrap().join("node");
    for (n, right) in rights().into_iter().enumerate() {
        let mut others = rights();
        others.remove(n);
        let said = refusal(&node, &bpffs, &setpriv(&others));
        let name = right.to_uppercase();
        assert!(said.contains(&format!("lacks CAP_{name} (")), "without {right}: {said}");
        assert!(said.contains(&format!("add {name} to securityContext.capabilities.add")), "{said}");
        assert!(!bpffs.exists(), "without {right} it made a folder");
    }
}

/// The agent checks for no more than the kernel does: without any one of the rights, the kernel refuses.
#[test]
fn each_right_is_needed() {
    let mut bed = Bed::new("needed").unwrap();
    let bpffs = bed.bpffs().unwrap();
    let refused = |name: &str, rights: Vec<String>| {
        let pins = bpffs.join(name);
        fs::create_dir(&pins).unwrap();
        let refused = std::thread::spawn(move || refused_with(&rights, &pins)).join().unwrap();
        println!("{name}: {refused:?}");
        refused
    };
    // This one comes first: aya detects the kernel's features once, and keeps the result.
    assert_eq!(refused("with-all", rights()), BTreeSet::new());
    for (n, right) in rights().into_iter().enumerate() {
        let mut others = rights();
        others.remove(n);
        let refused = refused(&format!("without-{right}"), others);
        assert!(
            !refused.is_empty(),
            "{right} is not needed any more: take it out of deploy/base/daemonset.yaml"
        );
    }
}

/// Programs that the kernel refuses from a thread with these capabilities, or the error if there are no maps.
fn refused_with(rights: &[String], pins: &Path) -> BTreeSet<String> {
    keep_only(rights);
    let mut object = match EbpfLoader::new().default_map_pin_directory(pins).load(OBJECT) {
        Ok(object) => object,
        Err(error) => return [format!("{:#}", anyhow::Error::from(error))].into(),
    };
    let load = |(name, program): (&str, &mut Program)| {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::Xdp(program) => program.load(),
            other => panic!("{name} is {:?}", other.prog_type()),
        };
        loaded.is_err().then(|| name.to_owned())
    };
    object.programs_mut().filter_map(load).collect()
}

/// Drops all other capabilities of the calling thread (capset(2)).
fn keep_only(rights: &[String]) {
    let numbers = [("net_admin", 12), ("perfmon", 38), ("bpf", 39)];
    let number = |right: &String| numbers.iter().find(|(name, _)| name == right).unwrap().1;
    let held = rights.iter().fold(0u64, |all, right| all | 1 << number(right));
    let (low, high) = (held as u32, (held >> 32) as u32);
    // _LINUX_CAPABILITY_VERSION_3, this thread; then effective, permitted and inheritable, low and high halves.
    let header = [0x2008_0522u32, 0];
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: the kernel reads 8 and 24 bytes from arrays of that size, which live across the call.
    let failed = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(failed, 0, "capset: {}", std::io::Error::last_os_error());
}

#[test]
fn second_agent_reports_the_first_one() {
    let (mut bed, node, client, backend, _server) = stage("second");
    let mut through = vec!["env".to_owned(), "POD_NAME=lbr-x7k2p".to_owned()];
    through.extend(setpriv(&rights()));
    let options = AgentOptions { through: through.clone(), ..AgentOptions::default() };
    let mut agent = Agent::start_with(&mut bed, &node, &options, &[("web.yaml", web(&[&backend]))]).unwrap();
    let said = refusal(&node, agent.bpffs(), &setpriv(&rights()));
    let first = format!("process {} in pod lbr-x7k2p) uses {}", agent.id().unwrap(), agent.bpffs().display());
    assert!(said.contains("another lbr agent (version ") && said.contains(&first), "{said}");
    asks(&Client::new(&client.ns), &backend);
    // The kernel frees the lock of a killed agent.
    agent.kill();
    agent.run().unwrap();
    asks(&Client::new(&client.ns), &backend);
}

/// In a container, the mount at /sys/fs/cgroup is the container's part of the hierarchy, and looks like a root.
#[test]
fn the_root_of_the_cgroups_is_found_from_within_a_container() {
    let mut bed = Bed::new("cgroupns").unwrap();
    let cgroup = bed.cgroup().unwrap();
    let own = bed.folder().join("own");
    fs::create_dir(&own).unwrap();
    let found = in_container(&cgroup, &own);
    assert!(!found.is_empty(), "the machine's own mount is not found");
}

/// All folders that lbr finds in a cgroup namespace, with a mount of that namespace's own root at `own`: each folder
/// is unmounted there, until none is found.
fn in_container(cgroup: &Cgroup, own: &Path) -> Vec<PathBuf> {
    let search = || {
        cgroup.enter_thread().unwrap();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        mount(Some("none"), own, Some("cgroup2"), MsFlags::empty(), nothing).unwrap();
        assert_ne!(fs::metadata(own).unwrap().ino(), 1);
        let mut found = Vec::new();
        while let Some(folder) = find_cgroup2() {
            assert_ne!(folder, own, "only a part of the hierarchy");
            umount2(&folder, MntFlags::MNT_DETACH).unwrap();
            found.push(folder);
        }
        found
    };
    std::thread::scope(|scope| scope.spawn(search).join().unwrap())
}
