//! The features that the kernel object uses are those in `lbr_agent::dataplane::requirements`, and in
//! ARCHITECTURE.md.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use aya_obj::generated::{BPF_CALL, BPF_JMP, bpf_insn};
use aya_obj::{Object, ProgramSection};
use lbr_agent::dataplane::OBJECT;
use lbr_agent::dataplane::requirements::{self, FEATURES, Kind, What};

/// The object as the agent loads it, except that all map descriptors are 1.
fn object() -> Object {
    let mut object = Object::parse(OBJECT).unwrap();
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let maps: Vec<_> = object.maps.iter().map(|(name, map)| (name.clone(), map.clone())).collect();
    object.relocate_maps(maps.iter().map(|(name, map)| (name.as_str(), 1, map)), &text).unwrap();
    object.relocate_calls(&text).unwrap();
    object
}

fn kind(section: &ProgramSection) -> Kind {
    match section {
        ProgramSection::SchedClassifier => Kind::Classifier,
        ProgramSection::Xdp { .. } => Kind::Xdp,
        ProgramSection::CgroupSockAddr { .. } => Kind::SocketAddress,
        other => panic!("requirements know no programs like {other:?}"),
    }
}

/// The helper that an instruction calls.
fn helper(instruction: &bpf_insn) -> Option<u32> {
    // A call of another function has a different source register.
    let is_call = u32::from(instruction.code) == BPF_JMP | BPF_CALL && instruction.src_reg() == 0;
    is_call.then(|| instruction.imm.cast_unsigned())
}

#[test]
fn every_helper_is_listed_with_the_programs_that_call_it() {
    let object = object();
    let mut used = BTreeSet::new();
    for program in object.programs.values() {
        let function = &object.functions[&program.function_key()];
        used.extend(function.instructions.iter().filter_map(helper).map(|id| (id, kind(&program.section))));
    }
    assert!(used.len() > 20, "{used:?}");
    let mut listed = BTreeSet::new();
    for feature in FEATURES {
        if let What::Helper(helper, kinds) = feature.what {
            listed.extend(kinds.iter().map(|kind| (helper as u32, *kind)));
        }
    }
    assert_eq!(
        used, listed,
        "left: called by the object; right: in requirements.rs (helper, type of program)"
    );
}

#[test]
fn every_type_of_map_and_program_is_listed() {
    let object = object();
    let used: BTreeSet<u32> = object.maps.values().map(|map| map.map_type()).collect();
    let listed = FEATURES.iter().filter_map(|feature| match feature.what {
        What::Map(kind) => Some(kind as u32),
        _ => None,
    });
    assert_eq!(used, listed.collect(), "left: types of maps in the object; right: in requirements.rs");
    let used: BTreeSet<Kind> = object.programs.values().map(|program| kind(&program.section)).collect();
    let listed = FEATURES.iter().filter_map(|feature| match feature.what {
        What::Program(kind) => Some(kind),
        _ => None,
    });
    assert_eq!(used, listed.collect(), "left: types of programs in the object; right: in requirements.rs");
}

/// The table stands between two markers. `LBR_WRITE_DOCS=1` writes it anew.
#[test]
fn architecture_has_the_table() {
    const BEGIN: &str = "<!-- kernel features -->\n";
    const END: &str = "<!-- end of kernel features -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let wanted = requirements::table();
    if std::env::var_os("LBR_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert!(found == wanted, "ARCHITECTURE.md differs from requirements.rs: LBR_WRITE_DOCS=1 writes it anew");
}
