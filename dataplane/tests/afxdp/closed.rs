//! Ports that are closed on failure stay closed, whatever happens to their devices.

use std::path::PathBuf;
use std::sync::Mutex;

use dataplane::port::afxdp::{Config, LinkInfo, OnFailure, Opened, Pins, open_pinned};

use crate::lab::{Lab, inside, run};
use crate::{A, alone, routed};

/// A bpffs of the test's own.
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount() -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-bpf-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        run(&format!("mount -t bpf bpf {}", path.display()));
        Self(path)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        crate::attempt(&format!("umount -l {}", self.0.display()));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Opens f0, closed on failure; the start has succeeded.
fn open_closed(pins: &Bpffs) -> Opened {
    let config = Config { on_failure: OnFailure::Closed, ..routed(&["f0"]) };
    let pins = Pins::survey(&pins.0).expect("nothing is there");
    let mut opened = open_pinned(&config, [], Some(pins)).expect("it opens");
    opened.program.settle().expect("it settles");
    opened
}

fn is_attached() -> bool {
    LinkInfo::of("f0").expect("it is there").attached.is_some()
}

/// Deletes f0 and makes it anew, with index `index`.
fn make_anew(lab: &Lab, index: u32) {
    let (f, l) = (lab.boxed(), lab.left());
    run(&format!("ip -n {f} link del f0"));
    run(&format!("ip -n {f} link add f0 index {index} type veth peer name l0 netns {l}"));
    run(&format!("ip -n {f} link set f0 up"));
    run(&format!("ip -n {l} link set l0 up"));
}

#[test]
fn a_port_that_cannot_be_opened_anew_stays_closed_when_the_process_ends() {
    let (_alone, lab, pins) = (alone(), Lab::new(1), Bpffs::mount());
    inside(&lab.boxed(), || {
        let Opened { program, workers, mut opener, .. } = open_closed(&pins);
        let program = Mutex::new(program);
        make_anew(&lab, 77);
        opener.close(&program, A);
        drop(workers);
        assert!(!is_attached(), "it is another device");
        // Renamed while it was opened.
        let renamed = LinkInfo { name: "f9".to_owned(), ..opener.look(A).expect("it is fit") };
        opener.open(&program, A, &renamed).expect_err("there is no f9");
        assert!(is_attached(), "closed");
        drop((program, opener));
        assert!(is_attached(), "closed after the end, too");
        let left = Pins::survey(&pins.0).expect("its link");
        assert_eq!(left.found().len(), 1);
    });
}

#[test]
fn a_device_that_comes_back_with_the_same_index_gets_the_program_again() {
    let (_alone, lab, pins) = (alone(), Lab::new(1), Bpffs::mount());
    inside(&lab.boxed(), || {
        let Opened { program, workers, mut opener, links, .. } = open_closed(&pins);
        let program = Mutex::new(program);
        make_anew(&lab, links[0].ifindex);
        opener.close(&program, A);
        drop(workers);
        let link = opener.look(A).expect("it is fit");
        assert_eq!((link.ifindex, link.attached), (links[0].ifindex, None));
        opener.open(&program, A, &link).expect("it opens");
        assert!(is_attached());
    });
}
