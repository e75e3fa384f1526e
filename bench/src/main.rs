//! `portcullis-bench`: measures, as JSON lines.

fn main() {}
