//! `lbr`: the command line.

fn main() {}
