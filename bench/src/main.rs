//! `portcullis-bench`: measures, as JSON lines.

mod blocklist;
mod classify;
mod clock;
mod compare;
mod conntrack;
mod e2e;
mod engine;
mod ipsets;
mod lab;
mod log;
mod peers;
mod pipeline;
mod report;
mod sets;
mod stand;
mod swap;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How fast, and against whom? Every command prints JSON lines.
#[derive(Debug, Parser)]
#[command(name = "portcullis-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A source blocklist in the XDP program, in the engine and in the kernel.
    Blocklist(blocklist::Args),
    /// Lookups in the classifier's structures.
    Classify(classify::Args),
    /// Subjects in turns on the same veths: Portcullis, raw forwarders, the kernel, DPDK.
    Compare(compare::Args),
    /// One subject between two veths: loss-free rate, latency, swaps under load.
    E2e(e2e::Args),
    /// A generator and a sink over AF_XDP.
    Gen(traffic::cli::Args),
    /// The connection table, by its size.
    Conntrack(conntrack::Args),
    /// What a flood that meets LOG costs forwarding.
    Log(log::Args),
    /// What a packet costs from its bytes to its bytes, over ports in memory.
    Pipeline(pipeline::Args),
    /// `docs/performance.md` and its plots from what the others printed.
    Report(report::Args),
    /// Sets of addresses and networks: loading, changes, lookups.
    Sets(ipsets::Args),
    /// Reading, compiling, checking and installing a policy.
    Swap(swap::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Blocklist(args) => blocklist::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Compare(args) => compare::run(args),
        Command::E2e(args) => e2e::run(args),
        Command::Gen(args) => traffic::cli::run(args),
        Command::Conntrack(args) => conntrack::run(args),
        Command::Log(args) => log::run(args),
        Command::Pipeline(args) => pipeline::run(args),
        Command::Report(args) => report::run(args),
        Command::Sets(args) => ipsets::run(args),
        Command::Swap(args) => swap::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
