//! The agent ends, and another one takes over its state.

use std::fs::DirEntry;
use std::path::Path;

use aya::maps::{Array, MapData};
use lbr_agent::dataplane::{Dataplane as _, Kernel, OBJECT, Pinned};
use lbr_agent::desired::Desired;
use lbr_agent::reconcile::Reconciler;
use lbr_common::maps;
use lbr_common::service::State;
use lbr_tests::scenario::Real;
use lbr_tests::testrun;

use super::scenarios::scenario_with_restarts;
use super::tables::{apply, ask, links, services};

macro_rules! restarts {
    ($($name:ident,)*) => {
        $(#[test]
        fn $name() {
            scenario_with_restarts(&stringify!($name).replace('_', "-"));
        })*
    };
}

restarts! {
    bridge_links_via_stack,
    cluster_ip_change,
    draining_becomes_last,
    dual_stack,
    headless_change_both_ways,
    link_hot_plug,
    local_links_direct,
    multi_port,
    recreate_service,
    scale_1_3_0_1,
    sctp_port,
    slice_moves_to_other_service,
    two_services_one_address_rejected,
}

pub(crate) fn state(pins: &Path) -> Array<MapData, State> {
    Array::try_from(testrun::open(pins, &maps::STATE).unwrap()).unwrap()
}

/// Two Services and two pod links, in force.
fn running(name: &str) -> (Real, Desired) {
    let mut real = Real::load(name).unwrap();
    real.set_links([5, 6]).unwrap();
    let mut tables = services(&[(1, &[1, 2, 3]), (2, &[1])]);
    tables.links = links(&[5, 6]);
    let kernel = real.kernel().unwrap();
    let mut reconciler = Reconciler::load(kernel).unwrap();
    assert!(apply(&mut reconciler, &tables, kernel).is_converged());
    (real, tables)
}

/// Everything that another agent, or a failed start, could have changed.
#[derive(Debug, PartialEq)]
struct Left {
    tables: Desired,
    state: State,
    pins: Vec<String>,
    attached: Vec<String>,
    answers: Vec<String>,
}

const ATTACHED: [&str; 4] = ["pod5 from_pod", "pod5 to_pod", "pod6 from_pod", "pod6 to_pod"];

impl Left {
    /// Without an agent, by the pins.
    fn by(real: &Real) -> Self {
        let name = |entry: std::io::Result<DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut pins: Vec<_> = std::fs::read_dir(real.pins()).unwrap().map(name).collect();
        pins.extend(std::fs::read_dir(real.pins().join("attached")).unwrap().map(name));
        // It is removed with the agent that it names.
        pins.retain(|name| name != "owner");
        pins.sort();
        Self {
            tables: Pinned::open(real.pins()).unwrap().tables().unwrap(),
            state: state(real.pins()).get(&0, 0).unwrap(),
            pins,
            attached: real.attached().unwrap(),
            answers: Vec::new(),
        }
    }

    /// With an agent, also the answers of its programs.
    fn with_answers(real: &mut Real) -> Self {
        let answers = [1, 2, 3].map(|service| ask(real, service)).concat();
        Self { answers, ..Self::by(real) }
    }
}

#[test]
fn a_new_agent_writes_nothing_anew_but_links() {
    let (mut real, tables) = running("adopt");
    let before = Left::with_answers(&mut real);
    assert_eq!((&before.tables, before.attached.as_slice()), (&tables, &ATTACHED.map(String::from)[..]));
    assert_eq!(before.answers.len(), 5, "{:?}", before.answers);

    real.kill();
    assert_eq!(Left::by(&real), Left { answers: Vec::new(), ..before }, "without an agent");
    let before = Left::by(&real);

    real.start().unwrap();
    assert_eq!(Left::by(&real), before, "before it has written anything");
    let kernel = real.kernel().unwrap();
    let mut reconciler = Reconciler::load(kernel).unwrap();
    assert_eq!(reconciler.actual(), tables);
    let outcome = apply(&mut reconciler, &tables, kernel);
    assert_eq!((outcome.writes, outcome.removals, outcome.pending), (2, 0, 0), "{outcome:?}");
    // A former agent may have ended between a removal and the raise of the epoch.
    let state = State { epoch: before.state.epoch + 1, ..before.state };
    assert_eq!(Left::by(&real), Left { state, ..before });
    let outcome = apply(&mut reconciler, &tables, real.kernel().unwrap());
    assert_eq!((outcome.writes, outcome.removals), (0, 0), "the second time not even those");
}

#[test]
fn the_new_programs_choose_as_the_old_ones() {
    let (mut real, _) = running("choice");
    let tuples: Vec<_> = (0..200u16).map(|n| super::agree::tuple_to_service_1(40_000 + n)).collect();
    let before: Vec<_> = tuples.iter().map(|tuple| real.ask(tuple).unwrap()).collect();
    real.kill();
    real.start().unwrap();
    let after: Vec<_> = tuples.iter().map(|tuple| real.ask(tuple).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_second_agent_is_refused_while_the_first_lives() {
    let (mut real, tables) = running("second");
    let before = Left::with_answers(&mut real);
    let error = Kernel::load(real.options()).err().unwrap();
    let text = format!("{error:#}");
    assert!(text.contains("another lbr agent (") && text.contains("--bpffs"), "{text}");
    assert_eq!(Left::with_answers(&mut real), before);

    real.kill();
    real.start().unwrap();
    assert_eq!(Reconciler::load(real.kernel().unwrap()).unwrap().actual(), tables);
}

#[test]
fn maps_of_another_layout_are_refused_and_left_alone() {
    let (mut real, _) = running("abi");
    real.kill();
    let mut map = state(real.pins());
    let ours = map.get(&0, 0).unwrap();
    map.set(0, State { abi: ours.abi + 1, ..ours }, 0).unwrap();
    let before = Left::by(&real);
    for _ in 0..2 {
        let text = format!("{:#}", real.start().unwrap_err());
        let numbers = format!("layout {}, this lbr writes {}", ours.abi + 1, ours.abi);
        assert!(text.contains("of another version of lbr") && text.contains(&numbers), "{text}");
        assert_eq!(Left::by(&real), before);
    }

    map.set(0, ours, 0).unwrap();
    real.start().unwrap();
}

#[test]
fn maps_keep_their_size() {
    let (mut real, tables) = running("size");
    real.kill();
    real.options().sizes.insert("backends".to_owned(), 2);
    real.start().unwrap();
    let kernel = real.kernel().unwrap();
    let mut reconciler = Reconciler::load(kernel).unwrap();
    let outcome = apply(&mut reconciler, &tables, kernel);
    assert!(outcome.is_converged() && outcome.problems.is_empty(), "{outcome:?}");
}

#[test]
fn a_link_that_went_away_meanwhile_is_forgotten() {
    let (mut real, mut tables) = running("gone");
    real.kill();
    real.set_links([6]).unwrap();
    real.start().unwrap();
    tables.links.remove(&5);
    let kernel = real.kernel().unwrap();
    let mut reconciler = Reconciler::load(kernel).unwrap();
    assert!(apply(&mut reconciler, &tables, kernel).is_converged());
    assert_eq!(Pinned::open(real.pins()).unwrap().tables().unwrap(), tables);
    real.expect_attached(&[6]).unwrap();
}

/// The object, with a program that reads above its stack.
fn broken(program: &str) -> Vec<u8> {
    /// `r0 = *(u64 *)(r10 + 8)`
    const READ_ABOVE_STACK: [u8; 8] = [0x79, 0xa0, 8, 0, 0, 0, 0, 0];
    let parsed = aya_obj::Object::parse(OBJECT).unwrap();
    let function = &parsed.functions[&parsed.programs[program].function_key()];
    let code: Vec<u8> = function.instructions.iter().flat_map(|i| instruction_bytes(*i)).collect();
    let mut object = OBJECT.to_vec();
    let places: Vec<usize> =
        (0..object.len() - code.len()).filter(|at| object[*at..].starts_with(&code)).collect();
    let [at] = places[..] else { panic!("the code of {program} is at {places:?}") };
    object[at..at + 8].copy_from_slice(&READ_ABOVE_STACK);
    object
}

/// The bytes in an object for a little-endian machine.
fn instruction_bytes(instruction: aya_obj::generated::bpf_insn) -> [u8; 8] {
    let [low, high] = instruction.off.to_le_bytes();
    let [a, b, c, d] = instruction.imm.to_le_bytes();
    let registers = instruction.src_reg() << 4 | instruction.dst_reg();
    [instruction.code, registers, low, high, a, b, c, d]
}

/// An upgrade to an object with a program that the kernel refuses, whichever program it is.
#[test]
fn an_object_that_the_kernel_refuses_leaves_the_programs_of_before() {
    let (mut real, _) = running("refused");
    real.kill();
    let (before, programs) = (Left::by(&real), real.attached_ids().unwrap());
    assert_eq!(programs.len(), 4, "{programs:?}");
    for program in ["from_pod", "to_netdev"] {
        let error = Kernel::load_object(real.options(), &broken(program)).err().unwrap();
        let text = format!("{error:#}");
        let wanted = format!("refuses program {program}; nothing was attached or replaced");
        assert!(text.contains(&wanted) && text.contains("invalid read from stack"), "{text}");
        assert!(text.starts_with("Linux ") && text.len() < 400, "{text}");
        assert_eq!(Left::by(&real), before);
        assert_eq!(real.attached_ids().unwrap(), programs);
    }
    real.start().unwrap();
    assert_eq!(real.attached().unwrap(), before.attached);
    assert_ne!(real.attached_ids().unwrap(), programs, "an object that is not refused replaces them");
}

#[test]
fn a_first_start_that_the_kernel_refuses_leaves_no_pins() {
    let (mut real, _) = running("nothing");
    let mut options = real.options().clone();
    real.kill();
    options.bpffs = options.bpffs.with_file_name("new");
    Kernel::load_object(&options, &broken("to_pod")).err().unwrap();
    assert!(!options.bpffs.exists());
    drop(Kernel::load(&options).unwrap());
    assert!(options.bpffs.join(maps::FLOWS.name).exists());
}

#[test]
fn the_former_programs_serve_what_is_written_while_the_new_ones_load() {
    let (mut real, tables) = running("loading");
    real.kill();
    let (attached, programs) = (real.attached().unwrap(), real.attached_ids().unwrap());
    let (mut kernel, loaded) = Kernel::open(real.options()).unwrap();
    assert!(!kernel.can_attach());
    let mut reconciler = Reconciler::load(&mut kernel).unwrap();
    let mut fewer = tables.clone();
    fewer.frontends.clear();
    let outcome = apply(&mut reconciler, &fewer, &mut kernel);
    assert!(outcome.problems.is_empty() && !outcome.waits_for_programs, "{outcome:?}");
    assert!(Pinned::open(real.pins()).unwrap().tables().unwrap().frontends.is_empty());
    assert_eq!(real.attached_ids().unwrap(), programs);

    loaded.blocking_recv().unwrap();
    assert_eq!(kernel.attach_programs().unwrap().len(), programs.len());
    assert!(apply(&mut reconciler, &tables, &mut kernel).is_converged());
    assert_eq!(Pinned::open(real.pins()).unwrap().tables().unwrap(), tables);
    assert_eq!(real.attached().unwrap(), attached);
    assert_ne!(real.attached_ids().unwrap(), programs);
}

#[test]
fn an_agent_that_ends_while_programs_load_leaves_everything_as_it_was() {
    let (mut real, _) = running("signal");
    real.kill();
    let before = Left::by(&real);
    drop(Kernel::open(real.options()).unwrap());
    assert_eq!(Left::by(&real), before);
    let mut options = real.options().clone();
    options.bpffs = options.bpffs.with_file_name("new");
    drop(Kernel::open(&options).unwrap());
    assert!(!options.bpffs.exists());
    real.start().unwrap();
}
