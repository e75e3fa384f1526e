//! The machine that figures come from, as its kernel tells.

/// What the page says of the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_gib: u64,
    pub(super) kernel: String,
    pub(super) simd: Vec<&'static str>,
}

/// Instructions that matter here, among the CPU's flags.
const SIMD: [&str; 4] = ["sse4_2", "avx2", "avx512bw", "avx512vl"];

impl Machine {
    /// Reads `/proc`.
    pub(super) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::of(
            &read("/proc/cpuinfo"),
            &read("/proc/meminfo"),
            &read("/proc/sys/kernel/osrelease"),
        )
    }

    fn of(cpuinfo: &str, meminfo: &str, release: &str) -> Self {
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").split_whitespace().collect();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib: u64 = total
            .and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let numbers = [field("cpu family"), field("model\t"), field("stepping")];
        Self {
            cpu: format!(
                "{} (family {}, model {}, stepping {})",
                field("model name"),
                numbers[0],
                numbers[1],
                numbers[2]
            ),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: release.trim().to_owned(),
            simd: SIMD.into_iter().filter(|name| flags.contains(name)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let cpu = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: A CPU @ 2 GHz\nstepping\t: 2\nflags\t\t: fpu avx2 sse4_2\n\nprocessor\t: 1\n";
        let machine = Machine::of(cpu, "MemTotal:       24000000 kB\n", "6.1.0-test\n");
        assert_eq!(machine.cpu, "A CPU @ 2 GHz (family 6, model 207, stepping 2)");
        assert_eq!((machine.cores, machine.memory_gib), (2, 23));
        assert_eq!((machine.kernel.as_str(), machine.simd), ("6.1.0-test", vec!["sse4_2", "avx2"]));
    }
}
