use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const SEGMENTS: [Segment; 7] = [
    Segment::Datagram,
    Segment::Syn,
    Segment::SynAck,
    Segment::Ack,
    Segment::Data,
    Segment::Fin,
    Segment::Rst,
];
const SIDES: [Side; 2] = [Side::Original, Side::Reply];

/// The table of ARCHITECTURE.md, one row for each (state, side): the next state for SYN/ACK, ACK, data, FIN and RST.
/// `a/b`: a without proof, b with it.
const TABLE: &str = "
    new          original  new          new                  new                  new                   refused
    new          reply     replied      new                  new                  new                   refused
    replied      original  replied      replied/established  replied/established  replied/fin_original  refused
    replied      reply     replied      replied              established          fin_reply             refused
    established  original  established  established          established          fin_original          reset
    established  reply     established  established          established          fin_reply             reset
    fin_original original  fin_original fin_original         fin_original         fin_original          reset
    fin_original reply     fin_original fin_original         fin_original         closed                reset
    fin_reply    original  fin_reply    fin_reply            fin_reply            closed                reset
    fin_reply    reply     fin_reply    fin_reply            fin_reply            fin_reply             reset
    closed       original  closed       closed               closed               closed                closed
    closed       reply     closed       closed               closed               closed                closed
    reset        original  reset        established          established          fin_original          reset
    reset        reply     reset        established          established          fin_reply             reset
    refused      original  refused      refused              refused              refused               refused
    refused      reply     replied      refused              established          fin_reply             refused
    picked_up    original  picked_up    picked_up            picked_up            picked_up             refused
    picked_up    reply     established  established          established          fin_reply             refused
";

fn named(name: &str) -> State {
    State::ALL.into_iter().find(|state| state.name() == name).unwrap()
}

#[test]
fn tcp_follows_the_table() {
    let columns = [Segment::SynAck, Segment::Ack, Segment::Data, Segment::Fin, Segment::Rst];
    let mut rows = 0;
    for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let side = if cells[1] == "original" { Side::Original } else { Side::Reply };
        for (segment, cell) in columns.into_iter().zip(&cells[2..]) {
            let (without, with) = cell.split_once('/').unwrap_or((cell, cell));
            for (is_proven, expected) in [(false, without), (true, with)] {
                let next = named(cells[0]).next(side, segment, is_proven);
                assert_eq!(next.name(), expected, "{row}: {segment:?}, proven: {is_proven}");
            }
        }
        rows += 1;
    }
    assert_eq!(rows, State::ALL.len() * SIDES.len(), "every state and side has a row");
}

#[test]
fn the_documented_table_is_this_one() {
    let document = include_str!("../../../ARCHITECTURE.md");
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let document: Vec<_> = document.lines().map(|line| squeezed(&line.replace('|', " "))).collect();
    for row in TABLE.lines().map(squeezed).filter(|row| !row.is_empty()) {
        assert!(document.contains(&row), "ARCHITECTURE.md lacks the row: {row}");
    }
}

#[test]
fn datagrams_become_a_stream_when_both_sides_talk_for_long() {
    assert_eq!(State::New.next(Side::Original, Segment::Datagram, true), State::New);
    assert_eq!(State::New.next(Side::Reply, Segment::Datagram, true), State::Replied);
    for side in SIDES {
        assert_eq!(State::Replied.next(side, Segment::Datagram, false), State::Replied);
        assert_eq!(State::Replied.next(side, Segment::Datagram, true), State::Established);
        assert_eq!(State::Established.next(side, Segment::Datagram, false), State::Established);
    }
}

#[test]
fn numbers_names_and_states_agree() {
    for (number, state) in State::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, number);
        assert_eq!(State::of(number as u32), state);
        assert_eq!(named(state.name()), state);
    }
    assert_eq!(State::of(77), State::Refused);
}

#[test]
fn flags_name_the_segment() {
    use tcp_flags::{ACK, FIN, RST, SYN};
    for flags in 0..=u8::MAX {
        let segment = Segment::of_tcp(flags, false);
        assert_eq!(segment == Segment::Rst, flags & RST != 0);
        assert_eq!(segment == Segment::Syn, flags & (SYN | ACK | RST) == SYN);
        assert_eq!(segment == Segment::Fin, flags & (FIN | RST) == FIN && flags & (SYN | ACK) != SYN);
        assert_eq!(Segment::of_tcp(flags, true) == Segment::Data, flags & (SYN | FIN | RST) == 0);
    }
}

#[test]
fn a_connection_lives_and_dies_as_rfc_9293_says() {
    let run = |first: Segment, steps: &[(Side, Segment, bool)]| {
        steps
            .iter()
            .fold(State::first(first, true), |s, (side, segment, proven)| s.next(*side, *segment, *proven))
    };
    use Segment::{Ack, Data, Fin, Rst, Syn, SynAck};
    use Side::{Original, Reply};
    let open = [(Reply, SynAck, false), (Original, Ack, true)];
    assert_eq!(run(Syn, &open), State::Established);
    let closed = [open[0], open[1], (Original, Data, false), (Original, Fin, false), (Reply, Fin, false)];
    assert_eq!(run(Syn, &closed), State::Closed);
    assert_eq!(run(Syn, &[(Reply, Rst, false)]), State::Refused);
    // A forged RST does not end what goes on.
    let forged = [open[0], open[1], (Original, Rst, false), (Reply, Ack, false)];
    assert_eq!(run(Syn, &forged), State::Established);
}

#[test]
fn every_unconfirmed_state_is_shorter_than_every_live_one() {
    let timeouts = Timeouts::DEFAULT;
    for proto in [proto::TCP, proto::UDP, proto::ICMP, proto::SCTP] {
        let established = lifetime(State::Established, proto, &timeouts);
        for state in State::ALL {
            let life = lifetime(state, proto, &timeouts);
            assert!(life >= SECOND_NS, "{state:?}: the fast path looks at ages above a second only");
            assert!(life <= established, "{state:?}");
        }
    }
    // RFC 5382 REQ-5, RFC 4787 REQ-5.
    assert!(lifetime(State::Established, proto::TCP, &timeouts) >= 7_440 * SECOND_NS);
    assert!(lifetime(State::Established, proto::UDP, &timeouts) >= 120 * SECOND_NS);
}

#[test]
fn time_stamps_wrap() {
    let began = stamp(u64::from(u32::MAX) << 20);
    let later = (u64::from(u32::MAX) << 20) + STREAM_AFTER_NS;
    assert!(!is_stream(began, later - (1 << 20)) && is_stream(began, later));
}

fn segments() -> impl Strategy<Value = (bool, usize, bool)> {
    (any::<bool>(), 0..SEGMENTS.len(), any::<bool>())
}

proptest! {
    /// What only one side sends, without proof, never confirms a connection: neither a forged client's packets, nor
    /// any in which the server says nothing but SYN/ACK, ACK and RST.
    #[test]
    fn a_forged_client_confirms_nothing(
        first in prop::sample::select(std::vec![Segment::Datagram, Segment::Syn, Segment::Ack, Segment::Rst]),
        packets in prop::collection::vec(segments(), 0..40),
    ) {
        let mut state = State::first(first, true);
        for (by_server, segment, _) in packets {
            let segment = SEGMENTS[segment];
            let is_server_answer = matches!(segment, Segment::SynAck | Segment::Ack | Segment::Rst);
            // A pickup is confirmed by any answer but a RST, which is what a host without the connection sends.
            let may_answer = if first == Segment::Syn { is_server_answer } else { segment == Segment::Rst };
            let side = if by_server && may_answer { Side::Reply } else { Side::Original };
            state = state.next(side, segment, false);
            prop_assert!(!state.is_confirmed(), "{state:?} after {segment:?} by {side:?}");
        }
    }

    /// No packet takes a confirmed flow back to an unconfirmed state, which would have no slot.
    #[test]
    fn confirmed_stays_confirmed(packets in prop::collection::vec(segments(), 0..60), start in 0..State::ALL.len()) {
        let mut state = State::ALL[start];
        for (by_server, segment, is_proven) in packets {
            let side = if by_server { Side::Reply } else { Side::Original };
            let next = state.next(side, SEGMENTS[segment], is_proven);
            prop_assert!(next.is_confirmed() || !state.is_confirmed(), "{state:?} -> {next:?}");
            state = next;
        }
    }
}
