//! `lbr why` and packets: random worlds with ends of all kinds, where each answer is compared with what becomes of the
//! connection's first packet.
//!
//! - `way` is the node: it sends a packet through the programs as the kernel would.
//! - `agree` compares an answer with what happened.

mod agree;
mod way;

use std::time::{Duration, Instant};

use lbr_agent::cli::args::{Proto, WhyArgs, WhyOutput};
use lbr_agent::cli::why;
use lbr_agent::compile::compile;
use lbr_agent::dataplane::Pinned;
use lbr_agent::ids::Ids;
use lbr_agent::reconcile::Reconciler;
use lbr_common::tuple::{Tuple, proto};
use lbr_tests::oracle::{Case, Question, tuple_text};
use lbr_tests::testrun::say;

use self::agree::Seen;
use self::way::Node;
use super::world::number;

/// For how long the test runs as part of the suite.
const TIME: Duration = Duration::from_secs(12);
/// As many worlds it plays in any case.
const LEAST: u64 = 60;
/// Connections in each.
const QUESTIONS: usize = 100;

/// `LBR_WORLDS=10000` plays that many, from seed `LBR_SEED` on (1); without it, as many as [`TIME`] allows. A seed gives the
/// same cluster and the same packets each time; which endpoint a Service chooses depends on a secret of the loaded object, too.
#[test]
fn answers_are_what_happens_to_packets() {
    let (first, count) = (number("LBR_SEED").unwrap_or(1), number("LBR_WORLDS"));
    let start = Instant::now();
    let mut node = Node::new();
    let mut reconciler = Reconciler::load(&mut node.programs.kernel).unwrap();
    let links = reconciler.actual().links;
    let mut ids = Ids::new();
    let mut seen = Seen::default();
    let mut played = 0;
    while count.map_or(played < LEAST || start.elapsed() < TIME, |count| played < count) {
        let seed = first + played;
        let case = Case::with_services(seed, node.uplink);
        let mut tables = compile(case.store().unwrap().state(), &case.node, &mut ids);
        // Programs stay attached where no pod is, too.
        tables.links =
            links.iter().map(|(index, link)| (*index, *tables.links.get(index).unwrap_or(link))).collect();
        let outcome = reconciler.apply(tables, true, &mut node.programs.kernel);
        assert!(outcome.is_converged(), "seed {seed}: {:?}", outcome.problems);
        let tables = Pinned::open(node.programs.pins()).unwrap().tables_of(why::MAPS).unwrap();
        node.forget_flows();
        for question in case.questions(seed, QUESTIONS) {
            let answer =
                why::ask(&tables, &args(&question.tuple), "this").map_err(|error| format!("{error:#}"));
            let fate = node.send(&case, &question);
            if let Err(what) = agree::check(&case, &question, &answer, &fate, &mut seen) {
                panic!(
                    "LBR_SEED={seed} LBR_WORLDS=1: {}\n{what}\nanswer {answer:#?}\npacket {fate:#?}\n{}",
                    text(&question),
                    case.yaml()
                );
            }
            node.forget_flows();
        }
        played += 1;
    }
    say(&format!("{played} worlds from seed {first} in {:?}: {seen:?}", start.elapsed()));
    if count.is_none() {
        seen.check_that_every_kind_came();
    }
}

fn text(question: &Question) -> String {
    let fragments = if question.in_fragments { ", in fragments" } else { "" };
    format!("{}{fragments}", tuple_text(&question.tuple))
}

/// The command line for a connection.
fn args(tuple: &Tuple) -> WhyArgs {
    let proto = match tuple.proto {
        proto::TCP => Proto::Tcp,
        proto::UDP => Proto::Udp,
        proto::SCTP => Proto::Sctp,
        // Policies do not distinguish protocols without ports.
        _ => Proto::Icmp,
    };
    WhyArgs {
        from: tuple.src.to_string(),
        to: tuple.dst.to_string(),
        port: (tuple.dst_port != 0).then(|| tuple.dst_port.to_string()),
        proto: Some(proto),
        output: WhyOutput::Json,
        bpffs: std::path::PathBuf::new(),
    }
}
