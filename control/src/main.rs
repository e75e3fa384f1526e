//! The `portcullis` binary: hands its arguments to the command line.

fn main() {}
