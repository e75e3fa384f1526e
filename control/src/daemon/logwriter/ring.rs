//! How bytes get into files: through io_uring where the machine has it, else by `write`.
//!
//! One write is under way at a time and is waited for, so its buffer is there as long as
//! the kernel needs it. A write that cannot be handed in is made the plain way, and so
//! are those to pipes and devices.

#![allow(unsafe_code, reason = "io_uring takes pointers to what it writes")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

/// Entries of the ring: one write is under way at a time.
const ENTRIES: u32 = 2;
/// Where the file stands: these files are open for appending.
const HERE: u64 = u64::MAX;

/// The way into files.
pub(super) enum Way {
    /// By io_uring.
    Ring(Box<IoUring>),
    /// By `write`.
    Plain,
}

impl Way {
    /// The best that the machine has.
    pub(super) fn best() -> Self {
        match IoUring::new(ENTRIES) {
            Ok(ring) => Self::Ring(Box::new(ring)),
            Err(error) => {
                tracing::info!("log files are written without io_uring: {error}");
                Self::Plain
            }
        }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ring(_) => "io_uring",
            Self::Plain => "write",
        }
    }

    /// Writes all of it, or tells how many bytes and why no more.
    pub(super) fn write_whole(
        &mut self,
        file: &mut File,
        bytes: &[u8],
    ) -> Result<(), (usize, io::Error)> {
        // In a ring, a pipe that is full is waited for, whatever its flags say.
        let plain = file.metadata().is_ok_and(|meta| meta.is_file());
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let written = match self {
                Self::Ring(ring) if plain => match submit(ring, file, rest) {
                    Ok(result) => result,
                    Err(error) => {
                        tracing::warn!("io_uring gave up, writing without it: {error}");
                        *self = Self::Plain;
                        continue;
                    }
                },
                Self::Ring(_) | Self::Plain => file.write(rest),
            };
            match written {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }
}

/// One write, waited for. The outer error is the ring's own, before the write was handed in.
fn submit(ring: &mut IoUring, file: &File, bytes: &[u8]) -> io::Result<io::Result<usize>> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let write = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), length)
        .offset(HERE)
        .build();
    // SAFETY: `bytes` and `file` are borrowed until this function returns, and it does not
    // return before the write is completed: the loop below waits for it.
    let pushed = unsafe { ring.submission().push(&write) };
    pushed.map_err(|_| io::Error::other("the ring is full"))?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Not handed in: it never will be, because the caller gives the ring up.
            Err(error) if !ring.submission().is_empty() => return Err(error),
            // Handed in: its end must be waited for.
            Err(_) => std::thread::yield_now(),
        }
        if let Some(completion) = ring.completion().next() {
            let result = completion.result();
            return Ok(match usize::try_from(result) {
                Ok(count) => Ok(count),
                Err(_) => Err(io::Error::from_raw_os_error(-result)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write) = io::pipe().expect("a pipe");
        let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).expect("a flag");
        (read.into(), write.into())
    }

    #[test]
    fn both_ways_append_to_files() {
        let path = std::env::temp_dir().join(format!("portcullis-ring-{}", std::process::id()));
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        let mut expected = Vec::new();
        for mut way in [Way::best(), Way::Plain] {
            for number in 0..3_u8 {
                let bytes = vec![number; 100_000];
                way.write_whole(&mut file, &bytes).unwrap();
                expected.extend(bytes);
            }
        }
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written == expected, "{} bytes", written.len());
    }

    #[test]
    fn both_ways_write_all_or_say_how_much() {
        for mut way in [Way::best(), Way::Plain] {
            let (mut reader, mut writer) = pipe();
            way.write_whole(&mut writer, b"one ").unwrap();
            way.write_whole(&mut writer, b"two").unwrap();
            let mut text = [0; 16];
            assert_eq!(reader.read(&mut text).unwrap(), 7, "{}", way.name());
            assert_eq!(&text[..7], b"one two");
            // More than a pipe holds.
            let (written, error) = way.write_whole(&mut writer, &[7; 1 << 20]).unwrap_err();
            assert!(written > 0 && error.kind() == io::ErrorKind::WouldBlock, "{written} {error}");
            drop(reader);
            let (written, error) = way.write_whole(&mut writer, b"x").unwrap_err();
            assert_eq!((written, error.kind()), (0, io::ErrorKind::BrokenPipe));
        }
    }
}
