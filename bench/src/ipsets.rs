//! `sets`: what it costs to load, change and ask sets, beside the kernel's own in the
//! same run.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::clock::Nanos;
use dataplane::sets::{CreateSpec, Element, Extras, Set, SetType};
use serde_json::{Value, json};

use crate::clock::Stopwatch;
use crate::sets::Rng;

/// Arguments of `sets`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of addresses.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 1_000_000])]
    addresses: Vec<usize>,
    /// Numbers of networks.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 50_000])]
    networks: Vec<usize>,
    /// Lookups and changes that are measured.
    #[arg(long, default_value_t = 200_000)]
    tries: usize,
    /// Seed of the elements.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Load the same sets into the kernel, in a network namespace of their own (needs root).
    #[arg(long)]
    kernel: bool,
}

/// Before it nothing expires.
const NOW: Nanos = Nanos::from_secs(1);

/// Runs the measurement and prints one JSON object a line.
///
/// # Errors
/// A set that does not take its elements, a kernel that does not answer.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let kinds = [(SetType::HashIp, &args.addresses), (SetType::HashNet, &args.networks)];
    for (kind, counts) in kinds {
        for &count in counts {
            println!("{}", measure(kind, count, args)?);
            if args.kernel {
                println!("{}", kernel(kind, count, args)?);
            }
        }
    }
    Ok(())
}

fn spec(kind: SetType, count: usize) -> CreateSpec {
    // Room for what is added while changes are measured.
    CreateSpec { maxelem: (count * 2 + 1024) as u32, ..CreateSpec::new(kind) }
}

/// Different elements: odd numbers for what is loaded, even ones for what is not there.
pub(crate) fn element(kind: SetType, number: usize, seed: u64, there: bool) -> Element {
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1) ^ (seed as u32).wrapping_mul(0x85eb_ca6b);
    match kind {
        SetType::HashNet => {
            let cidr = [16, 20, 22, 23, 24, 27, 28, 32][number % 8];
            // The networks' own bits: where nothing was loaded the first bit is set.
            let first = if there { 0 } else { 1 << 31 };
            let ip = (mixed >> 1 | first) >> (32 - cidr) << (32 - cidr);
            Element { ip: u128::from(ip), cidr: Some(cidr as u8), ..Element::default() }
        }
        _ => {
            let ip = mixed << 1 | u32::from(there);
            Element { ip: u128::from(ip), ..Element::default() }
        }
    }
}

fn measure(kind: SetType, count: usize, args: &Args) -> Result<Value, Box<dyn std::error::Error>> {
    let elements: Vec<Element> = (0..count).map(|n| element(kind, n, args.seed, true)).collect();
    let set = Set::new(spec(kind, count), args.seed)?;
    let loading = Stopwatch::start();
    for element in &elements {
        // Short networks repeat.
        set.add(element, &Extras::default(), true, NOW)?;
    }
    let load_ns = loading.elapsed_ns();
    let loads = loads(&elements, kind, args)?;
    let mut rng = Rng(args.seed);
    let mut lookups = |there: bool| {
        let asked: Vec<Element> = (0..args.tries)
            .map(|_| {
                let element = element(kind, rng.below(count), args.seed, there);
                Element { cidr: None, ..element }
            })
            .collect();
        let looking = Stopwatch::start();
        let mut found = 0_usize;
        for element in &asked {
            found += usize::from(black_box(set.test(element, false, NOW)).unwrap_or(false));
        }
        (looking.elapsed_ns() as f64 / args.tries.max(1) as f64, found)
    };
    let (hit_ns, hits) = lookups(true);
    let (miss_ns, misses) = lookups(false);
    let header = set.header();
    let (add, delete) = changes(&set, kind, args)?;
    Ok(json!({
        "bench": "sets", "side": "portcullis", "type": kind.name(), "elements": header.entries,
        "load_ms": load_ns as f64 / 1e6, "memory_bytes": header.memory_bytes,
        "bytes_per_element": header.memory_bytes as f64 / f64::from(header.entries.max(1)),
        "hit_ns": hit_ns, "hits": hits, "miss_ns": miss_ns, "false_hits": misses,
        "add_ns": add, "delete_ns": delete, "load_add_ns": loads, "tries": args.tries,
    }))
}

/// Housekeeping's pause in the daemon.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Each addition while a set grows to its size and housekeeping looks ahead.
fn loads(
    elements: &[Element],
    kind: SetType,
    args: &Args,
) -> Result<Value, Box<dyn std::error::Error>> {
    let set = Set::new(spec(kind, elements.len()), args.seed)?;
    let mut times_ns = vec![0; elements.len()];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                set.foresee();
                std::thread::sleep(PAUSE);
            }
        });
        let mut added = elements.iter().zip(&mut times_ns).map(|(element, time_ns)| {
            let watch = Stopwatch::start();
            let added = set.add(element, &Extras::default(), true, NOW);
            *time_ns = watch.elapsed_ns();
            added
        });
        let added = added.try_for_each(|added| added);
        done.store(true, Ordering::Relaxed);
        added
    })?;
    Ok(spread(times_ns))
}

/// Adds and deletes one element after the other: median, 99.9th percentile and worst.
fn changes(
    set: &Set,
    kind: SetType,
    args: &Args,
) -> Result<(Value, Value), Box<dyn std::error::Error>> {
    let (mut adding, mut deleting) = (Vec::new(), Vec::new());
    for number in 0..args.tries.min(20_000) {
        let element = element(kind, number, args.seed ^ 0x55, false);
        let watch = Stopwatch::start();
        let added = set.add(&element, &Extras::default(), false, NOW);
        adding.push(watch.elapsed_ns());
        if added.is_err() {
            continue;
        }
        let watch = Stopwatch::start();
        set.del(&element, NOW)?;
        deleting.push(watch.elapsed_ns());
    }
    Ok((spread(adding), spread(deleting)))
}

fn spread(mut times_ns: Vec<u64>) -> Value {
    times_ns.sort_unstable();
    let at = |part: f64| {
        let index = (times_ns.len() as f64 * part) as usize;
        times_ns.get(index.min(times_ns.len().saturating_sub(1))).copied()
    };
    json!({ "median": at(0.5), "p999": at(0.999), "max": at(1.0) })
}

/// The kernel's `ipset` with the same elements.
fn kernel(kind: SetType, count: usize, args: &Args) -> Result<Value, Box<dyn std::error::Error>> {
    let namespace = format!("ptl-bench-{}", std::process::id());
    command(&["ip", "netns", "add", &namespace], "")?;
    let measured = kernel_in(&namespace, kind, count, args);
    command(&["ip", "netns", "del", &namespace], "")?;
    measured
}

fn kernel_in(
    namespace: &str,
    kind: SetType,
    count: usize,
    args: &Args,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut text = format!("create s {} maxelem {}\n", kind.name(), spec(kind, count).maxelem);
    for number in 0..count {
        let element = element(kind, number, args.seed, true);
        let ip = std::net::Ipv4Addr::from(element.ip as u32);
        match element.cidr {
            Some(cidr) => writeln!(text, "add s {ip}/{cidr} -exist")?,
            None => writeln!(text, "add s {ip} -exist")?,
        }
    }
    let inside = |words: &[&str], input: &str| {
        let mut all = vec!["ip", "netns", "exec", namespace];
        all.extend(words);
        command(&all, input)
    };
    let loading = Stopwatch::start();
    inside(&["ipset", "restore"], &text)?;
    let load_ns = loading.elapsed_ns();
    let listing = inside(&["ipset", "list", "-t", "s"], "")?;
    let number = |key: &str| {
        let line = listing.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    Ok(json!({
        "bench": "sets", "side": "kernel", "type": kind.name(),
        "elements": number("Number of entries:"), "load_ms": load_ns as f64 / 1e6,
        "memory_bytes": number("Size in memory:"),
    }))
}

pub(crate) fn command(words: &[&str], input: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{} failed", words.join(" ")).into()),
    }
}
