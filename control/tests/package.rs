//! The systemd unit and the Debian package: sound, hardened, reproducible, complete, and
//! never in the way of a running firewall. Needs root for a mount namespace of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Tenths of a point that `systemd-analyze security` may give at most; 100 is the worst.
const EXPOSURE: &str = "30";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn source(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command prints, on both streams; it must succeed.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The unit, with a program that exists.
fn unit(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("portcullis.service");
    let text = source("packaging/portcullis.service");
    fs::write(&path, text.replace("/usr/bin/portcullis", BINARY)).unwrap();
    path
}

#[test]
fn the_unit_is_sound_and_hardened() {
    let scratch = Scratch::new("unit");
    let path = unit(&scratch);
    let said = done(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
    assert_eq!(said.trim(), "", "systemd complains");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE]);
    done(security.arg(&path));
}

/// Values of a setting of the unit, all its lines together.
fn setting(name: &str) -> Vec<String> {
    let unit = source("packaging/portcullis.service");
    let prefix = format!("{name}=");
    let lines = unit.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The system calls of one of systemd's sets.
fn expand(set: &str, into: &mut BTreeSet<String>) {
    let said = done(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", set]));
    for line in said.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#')) {
        match line.starts_with('@') {
            true => expand(line, into),
            false => drop(into.insert(line.to_owned())),
        }
    }
}

#[test]
fn the_unit_allows_what_the_daemon_allows_itself() {
    let mut allowed = BTreeSet::new();
    for word in setting("SystemCallFilter") {
        match (word.strip_prefix('~'), word.starts_with('@')) {
            // Everything that follows on its line is taken away; those are sets of their own.
            (Some(_), _) => break,
            (None, true) => expand(&word, &mut allowed),
            (None, false) => drop(allowed.insert(word)),
        }
    }
    let code = source("control/src/daemon/sandbox/syscalls.rs");
    let (code, _tests) = code.split_once("#[cfg(test)]").unwrap();
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let ours =
        code.split(word).filter_map(|it| it.strip_prefix("SYS_")).filter(|it| !it.is_empty());
    let ours: BTreeSet<_> = ours.collect();
    assert!(ours.len() > 80, "{ours:?}");
    let mut removed = BTreeSet::new();
    for set in ["@keyring", "@setuid"] {
        expand(set, &mut removed);
    }
    for call in &ours {
        assert!(allowed.contains(*call), "the unit forbids {call}");
        assert!(!removed.contains(*call), "the unit takes {call} away");
    }

    let code = source("control/src/daemon/sandbox/privileges.rs");
    for name in ["NET_ADMIN", "NET_RAW", "IPC_LOCK", "BPF", "PERFMON"] {
        assert!(code.contains(&format!("CapabilitySet::{name}")), "{name}");
        for list in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert!(setting(list).contains(&format!("CAP_{name}")), "{list} without {name}");
        }
    }
    assert_eq!(setting("AmbientCapabilities").len(), 5);
    let code = source("control/src/daemon/sandbox/syscalls.rs");
    for family in setting("RestrictAddressFamilies") {
        assert!(code.contains(&format!("libc::{family},")), "{family}");
    }
    assert_eq!(setting("RestrictAddressFamilies").len(), code.matches("    libc::AF_").count());
}

/// Builds a package of the binary under test.
fn package(out: &Path) -> PathBuf {
    let mut script = Command::new(root().join("scripts/package"));
    script.args(["--fast", "--binary", BINARY, "--out"]).arg(out);
    script.env("SOURCE_DATE_EPOCH", "1700000000");
    PathBuf::from(done(&mut script).trim())
}

#[test]
fn the_package_is_complete_and_the_same_each_time() {
    let scratch = Scratch::new("package");
    let package_a = package(&scratch.path("a"));
    let package_b = package(&scratch.path("b"));
    assert!(fs::read(&package_a).unwrap() == fs::read(&package_b).unwrap(), "reproducible");
    let version = env!("CARGO_PKG_VERSION");
    let name = package_a.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with(&format!("portcullis_{version}_")), "{name}");

    let list = done(Command::new("dpkg-deb").arg("-c").arg(&package_a));
    for file in [
        "./usr/bin/portcullis",
        "./usr/lib/systemd/system/portcullis.service",
        "./usr/lib/sysusers.d/portcullis.conf",
        "./usr/lib/tmpfiles.d/portcullis.conf",
        "./etc/logrotate.d/portcullis",
        "./etc/portcullis/portcullis.toml",
        "./usr/share/man/man1/portcullis-run.1.gz",
        "./usr/share/man/man1/portcullis-show-rules.1.gz",
        "./usr/share/bash-completion/completions/portcullis",
        "./usr/share/zsh/vendor-completions/_portcullis",
        "./usr/share/fish/vendor_completions.d/portcullis.fish",
        "./usr/share/doc/portcullis/copyright",
        "./usr/share/doc/portcullis/operations.md",
        "./usr/share/doc/portcullis/examples/edge-gateway/portcullis.toml",
        "./usr/share/doc/portcullis/examples/service-host/portcullis.toml",
    ] {
        assert!(list.lines().any(|line| line.ends_with(file)), "{file} is missing:\n{list}");
    }
    assert!(list.lines().all(|line| line.contains(" root/root ")), "{list}");
    assert!(list.lines().all(|line| line.contains(" 2023-11-14 ")), "SOURCE_DATE_EPOCH:\n{list}");
    let field = |name| done(Command::new("dpkg-deb").arg("-f").arg(&package_a).arg(name));
    assert_eq!(field("Version").trim(), version);
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));

    let tree = scratch.path("tree");
    done(Command::new("dpkg-deb").arg("-R").arg(&package_a).arg(&tree));
    for conffile in fs::read_to_string(tree.join("DEBIAN/conffiles")).unwrap().lines() {
        assert!(tree.join(conffile.trim_start_matches('/')).is_file(), "{conffile}");
    }
    let etc: BTreeSet<_> = list.lines().filter(|line| line.starts_with('-')).collect();
    let etc = etc.iter().filter(|line| line.contains(" ./etc/")).count();
    let conffiles = fs::read_to_string(tree.join("DEBIAN/conffiles")).unwrap().lines().count();
    assert_eq!(etc, conffiles, "every file in /etc is a conffile");
    done(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(&tree));
    for script in ["postinst", "prerm", "postrm"] {
        done(Command::new("sh").arg("-n").arg(tree.join("DEBIAN").join(script)));
    }
    let completions = tree.join("usr/share/bash-completion/completions/portcullis");
    done(Command::new("bash").arg("-n").arg(completions));
    what_is_installed_works(&tree);
}

/// The binary of the package, with the package's own files.
fn what_is_installed_works(tree: &Path) {
    let binary = tree.join("usr/bin/portcullis");
    let version = done(Command::new(&binary).arg("version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(done(Command::new(&binary).arg("--help")).contains("Examples:"));
    let etc = tree.join("etc/portcullis");
    let mut check = Command::new(&binary);
    check.arg("check").arg("--rules").arg(etc.join("rules.v4"));
    done(check.arg("--rules6").arg(etc.join("rules.v6")));
    // The configuration is read whole, and refused only because nobody has named the ports.
    let run = Command::new(&binary)
        .args(["run", "--config"])
        .arg(etc.join("portcullis.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("no ports"), "{said}");
    let text = fs::read_to_string(etc.join("portcullis.toml")).unwrap();
    let named = etc.join("named.toml");
    fs::write(&named, text.replacen("# ports =", "ports =", 1)).unwrap();
    done(Command::new(&binary).args(["config", "check"]).arg(&named));
}

/// Stands in for the programs that maintainer scripts call, and notes the calls.
const STUB: &str = "#!/bin/sh
echo \"$(basename \"$0\") $*\" >>\"$CALLS\"
case \"$(basename \"$0\") $*\" in *is-active*) exit \"${ACTIVE:-0}\" ;; getent*) exit 2 ;; esac
";

/// Runs a maintainer script as on a machine with systemd and pinned links; returns the calls
/// that it made, what it said, and whether the pins are still there.
fn maintain(scratch: &Scratch, script: &str, arguments: &str) -> (String, String, bool) {
    let bin = scratch.path("bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["systemctl", "systemd-tmpfiles", "systemd-sysusers", "getent", "useradd", "chown"]
    {
        fs::write(bin.join(name), STUB).unwrap();
        done(Command::new("chmod").arg("755").arg(bin.join(name)));
    }
    let calls = scratch.path("calls");
    fs::write(&calls, "").unwrap();
    let script = root().join("packaging/debian").join(script);
    let line = format!(
        "for place in /run /var/lib /var/log /sys/fs/bpf /etc; do mount -t tmpfs tmpfs $place; done
         mkdir -p /run/systemd/system /sys/fs/bpf/portcullis /var/lib/portcullis /etc/portcullis
         touch /sys/fs/bpf/portcullis/link-1 /etc/portcullis/rules.v4
         sh {} {arguments} && ls -A /sys/fs/bpf/portcullis 2>/dev/null",
        script.display()
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &line]);
    command.env("PATH", path).env("CALLS", &calls);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept = said.ends_with("link-1\n");
    (fs::read_to_string(&calls).unwrap(), said, kept)
}

#[test]
fn maintainer_scripts_leave_a_running_firewall_alone() {
    let scratch = Scratch::new("maintain");
    let touches = |calls: &str| {
        ["start", "restart", "stop", "disable", "enable", "reload-or", "try-"].iter().any(|verb| {
            calls.lines().any(|line| {
                line.starts_with("systemctl") && line.split(' ').any(|word| word.starts_with(verb))
            })
        })
    };
    let (calls, said, kept) = maintain(&scratch, "postinst", "configure 0.0.9");
    assert!(kept && !touches(&calls), "{calls}");
    assert!(said.contains("still the previous version (0.0.9)"), "{said}");
    assert!(calls.contains("systemd-sysusers portcullis.conf"), "{calls}");
    assert!(calls.contains("chown root:portcullis /etc/portcullis/rules.v4"), "{calls}");
    let (calls, _, kept) = maintain(&scratch, "prerm", "upgrade 0.2.0");
    assert!(kept && calls.is_empty(), "{calls}");
    let (calls, _, kept) = maintain(&scratch, "postrm", "upgrade 0.2.0");
    assert!(kept && !touches(&calls), "{calls}");

    let (calls, said, kept) = maintain(&scratch, "prerm", "remove");
    assert!(kept && touches(&calls), "{calls}");
    assert!(said.contains("the ports stay closed"), "{said}");
    let (_, _, kept) = maintain(&scratch, "postrm", "remove");
    assert!(kept);
    let (_, said, kept) = maintain(&scratch, "postrm", "purge");
    assert!(!kept && said.contains("releasing the ports"), "{said}");
}

#[test]
fn a_real_systemd_runs_watches_upgrades_and_removes_it() {
    let mut script = Command::new(root().join("scripts/service"));
    let table = done(script.args(["--binary", BINARY]));
    let rows = table.lines().filter(|line| line.ends_with(" ok")).count();
    assert!(rows >= 22 && table.ends_with("done\n"), "{table}");
}
