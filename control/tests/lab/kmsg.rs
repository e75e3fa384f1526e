//! The kernel's log, where LOG rules write.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Mutex;

/// Lets LOG rules outside the first namespace write to the log. The one setting
/// of the lab that is not inside its own namespaces; the last reader restores it.
const ALL_NAMESPACES: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

/// Readers alive in this process, and the setting they found.
static READERS: Mutex<(usize, String)> = Mutex::new((0, String::new()));

/// A reader of `/dev/kmsg`, from the moment it was opened.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Starts to listen.
    pub fn open() -> Self {
        let mut readers = READERS.lock().expect("unpoisoned");
        if readers.0 == 0 {
            readers.1 = std::fs::read_to_string(ALL_NAMESPACES).expect("netfilter's log setting");
            std::fs::write(ALL_NAMESPACES, "1").expect("setting it needs root");
        }
        readers.0 += 1;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let mut file = file.expect("reading the kernel's log needs root");
        file.seek(SeekFrom::End(0)).expect("seeking to the end of the kernel's log");
        Self(file)
    }
    /// What was logged since the last call and contains `tag`, from the tag on.
    pub fn take(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0_u8; 8_192];
        loop {
            match self.0.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    let line = message.lines().next().unwrap_or_default();
                    lines.extend(line.find(tag).map(|at| line[at..].to_owned()));
                }
                // Older records were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(_) => return lines,
            }
        }
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        let Ok(mut readers) = READERS.lock() else { return };
        readers.0 -= 1;
        if readers.0 == 0
            && let Err(error) = std::fs::write(ALL_NAMESPACES, readers.1.trim())
        {
            eprintln!("restoring {ALL_NAMESPACES}: {error}");
        }
    }
}
