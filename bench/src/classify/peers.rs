//! The programs that classify with other people's code, where `scripts/peers`
//! built them: started on a rule file and a trace file, their answers read.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What one contender took in one round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) contender: String,
    pub(super) median_ns: f64,
    pub(super) best_ns: f64,
    pub(super) build_ms: f64,
    pub(super) memory_mib: f64,
    /// Answers checked against a linear search, and how many of them were wrong.
    pub(super) verified: u64,
    pub(super) bad: u64,
}

/// Files and time of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) rules: &'a Path,
    pub(super) trace: &'a Path,
    pub(super) family: &'static str,
    pub(super) seconds: f64,
}

/// The peers that are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    acl: Option<PathBuf>,
    study: Option<PathBuf>,
}

impl Peers {
    /// Looks for the programs in a directory; names those that are not there.
    pub(super) fn find(directory: &Path) -> (Self, Vec<&'static str>) {
        let mut missing = Vec::new();
        let mut program = |name: &'static str| {
            let path = directory.join(name);
            let found = path.is_file();
            if !found {
                missing.push(name);
            }
            found.then_some(path)
        };
        let peers = Self { acl: program("acl_bench"), study: program("study") };
        (peers, missing)
    }

    /// One round of each peer in turn.
    ///
    /// # Errors
    /// A peer that says something else than expected, the prototype also when it does not run.
    pub(super) fn round(
        &self,
        task: &Task<'_>,
    ) -> Result<Vec<Measured>, Box<dyn std::error::Error>> {
        let mut measured = Vec::new();
        if let Some(program) = &self.acl {
            let mut command = Command::new("sh");
            command.args([
                "-c",
                "ulimit -v \"$1\" && shift && exec \"$@\"",
                "sh",
                &free_kib().to_string(),
            ]);
            command.arg(program).arg("-r").arg(task.rules).arg("-t").arg(task.trace);
            command.args(["-a", "avx2,avx512x32", "-s", &task.seconds.to_string(), "-M", "4096"]);
            if task.family == "v6" {
                command.arg("-6");
            }
            match output(&mut command) {
                Ok(said) => {
                    let read = read_acl(&said);
                    measured.extend(read.ok_or_else(|| unexpected("acl_bench", &said))?);
                }
                // It cannot build every set: that is a result, too.
                Err(error) => eprintln!("classify: acl_bench: {error}"),
            }
        }
        if let Some(program) = self.study.as_ref().filter(|_| task.family == "v4") {
            let mut command = Command::new(program);
            command.arg(task.rules).arg(task.trace).env("SECS", task.seconds.to_string());
            let said = output(&mut command)?;
            measured.push(read_study(&said).ok_or_else(|| unexpected("study", &said))?);
        }
        Ok(measured)
    }
}

/// Address space that a peer may take: three quarters of what is free. Building some
/// sets of 100,000 rules would otherwise take all that the machine has.
fn free_kib() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = number(&told, "MemAvailable:").unwrap_or(16e6);
    (free * 0.75) as u64
}

fn unexpected(program: &str, said: &str) -> String {
    format!("{program} printed something unexpected: {}", said.trim())
}

fn output(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The number that follows `label` (`=`, blanks and units aside).
fn number(text: &str, label: &str) -> Option<f64> {
    let rest = &text[text.find(label)? + label.len()..];
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Reads what `acl_bench` prints: a line of the build, then one a method.
fn read_acl(text: &str) -> Option<Vec<Measured>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let build = lines.find(|line| line.contains("build="))?;
    let (build_ms, memory_mib) = (number(build, " build=")?, number(build, "rt_mem=")?);
    let methods = lines.filter(|line| !line.contains("not supported"));
    methods
        .map(|line| {
            let name = match line.split_whitespace().next()? {
                "avx2" => "rte_acl-avx2",
                "avx512x32" => "rte_acl-x32",
                _ => return None,
            };
            let of = line.split(" verify ").nth(1)?;
            Some(Measured {
                contender: name.to_owned(),
                median_ns: number(line, "median")?,
                best_ns: number(line, "best")?,
                build_ms,
                memory_mib,
                verified: number(of, "/")? as u64,
                bad: number(line, "bad=")? as u64,
            })
        })
        .collect()
}

/// Reads the one line that the prototype prints.
fn read_study(text: &str) -> Option<Measured> {
    Some(Measured {
        contender: "study".to_owned(),
        median_ns: number(text, "| median")?,
        best_ns: number(text, " best")?,
        build_ms: number(text, "build=")?,
        memory_mib: number(text, "mem=")?,
        verified: number(text, "verify")? as u64,
        bad: number(text, " bad")? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acl_bench_is_read() {
        let text = "acl1 rules=9603 trace=65536 dpdk=22.11 max_size=0MiB tries=2 add=4.1ms build=380.5ms rt_mem=19.20MiB rules_mem=1.00MiB maxrss=90MiB thp=0MiB\n\
            \x20 avx2       median    60.1 ns/pkt ( 16.64 Mpps)  best    58.0 ns  verify 1999/2000 bad=1 hits=100.0% mean_idx=4000\n\
            \x20 avx512x32  not supported\n";
        let read = read_acl(text).expect("reads");
        assert_eq!(read.len(), 1);
        let expected = Measured {
            contender: "rte_acl-avx2".to_owned(),
            median_ns: 60.1,
            best_ns: 58.0,
            build_ms: 380.5,
            memory_mib: 19.2,
            verified: 2000,
            bad: 1,
        };
        assert_eq!(read[0], expected);
        assert_eq!(read_acl("acl1 BUILD FAILED rc=-12"), None);
    }

    #[test]
    fn the_prototype_is_read() {
        let text = "acl1 rules=9603 c=8 tables=9 rest=0 mem=1.25MiB build=7.5ms | median 41.0 best 40.2 ns/pkt (24.9 Mpps) | nonempty 2.00 leaves 1.5 recs 2.0 | verify 2048 bad 0 | [1]";
        let read = read_study(text).expect("reads");
        assert_eq!((read.median_ns, read.best_ns), (41.0, 40.2));
        assert_eq!((read.build_ms, read.memory_mib), (7.5, 1.25));
        assert_eq!((read.verified, read.bad), (2048, 0));
    }
}
