//! The `portcullis` binary: hands its arguments to the command line.

fn main() -> std::process::ExitCode {
    portcullis::cli::main()
}
