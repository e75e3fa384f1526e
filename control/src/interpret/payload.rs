//! Matches on any byte, the slow way: over a copy of the packet.

use dataplane::packet::{Family, PktType};
use dataplane::policy::payload::bpf::BpfInstruction;
use dataplane::policy::payload::string::{Algorithm, StringSpec};
use dataplane::policy::payload::u32::{U32Step, U32Test};
use dataplane::policy::payload::{PayloadMatch, U32Match};

use super::Subject;
use super::matching::{At, Compared};
use super::{Actual, packet::Packet};

pub(super) fn compare(at: At, wanted: &PayloadMatch, subject: &Subject<'_>) -> Compared {
    let bytes = subject.packet.bytes();
    match wanted {
        PayloadMatch::String(wanted) => {
            let spec = wanted.spec();
            at.need(contains(spec, &bytes) != spec.negated, "--string", Actual::Absent)
        }
        PayloadMatch::U32(U32Match { negated, tests }) => {
            let holds = tests.iter().all(|test| number_holds(test, &bytes));
            at.need(holds != *negated, "--u32", Actual::Absent)
        }
        PayloadMatch::Bpf(wanted) => {
            let mut run = Run { bytes: &bytes, subject, a: 0, x: 0, memory: [0; 16] };
            let returned = run.run(wanted.program()).unwrap_or(0);
            at.need(returned != 0, "--bytecode", Actual::Absent)
        }
    }
}

/// The kernel's letters are those of ISO 8859-1.
fn upper(byte: u8) -> u8 {
    let letter = byte.is_ascii_lowercase() || (byte >= 0xdf && byte != 0xf7);
    if letter { byte - 32 } else { byte }
}

fn lower(byte: u8) -> u8 {
    let letter = byte.is_ascii_uppercase() || ((0xc0..0xdf).contains(&byte) && byte != 0xd7);
    if letter { byte + 32 } else { byte }
}

fn contains(spec: &StringSpec, bytes: &[u8]) -> bool {
    let fold = |byte: u8| if spec.ignore_case { upper(byte) } else { byte };
    let wanted: Vec<u8> = spec.pattern.iter().map(|&byte| fold(byte)).collect();
    let end = bytes.len().min(usize::from(spec.to));
    let Some(text) = bytes.get(usize::from(spec.from)..end) else { return false };
    let fits = |at: usize| {
        text.get(at..at + wanted.len()).is_some_and(|part| {
            part.iter().zip(&wanted).all(|(byte, wanted)| fold(*byte) == *wanted)
        })
    };
    match spec.algorithm {
        Algorithm::KnuthMorrisPratt => (0..text.len()).any(fits),
        Algorithm::BoyerMoore => {
            // Places are tried as Boyer and Moore skip, by the definition of their rules:
            // the kernel's bad-character rule knows a letter's other case one way only.
            let mut at = 0;
            while at + wanted.len() <= text.len() {
                if fits(at) {
                    return true;
                }
                at += skip(&wanted, &text[at..at + wanted.len()], spec.ignore_case);
            }
            false
        }
    }
}

/// How far on the next place is that may fit.
fn skip(wanted: &[u8], part: &[u8], ignore_case: bool) -> usize {
    let fold = |byte: u8| if ignore_case { upper(byte) } else { byte };
    let len = wanted.len();
    let differs = (0..len).rev().find(|&at| fold(part[at]) != wanted[at]).unwrap_or(0);
    let known = |at: &usize| {
        wanted[*at] == part[differs] || (ignore_case && lower(wanted[*at]) == part[differs])
    };
    let bad = match (0..len - 1).rev().find(known) {
        Some(last) => differs as isize - last as isize,
        None => differs as isize + 1,
    };
    let suffix = &wanted[differs + 1..];
    let again = |by: &usize| {
        let same = (differs + 1..len).all(|at| at < *by || wanted[at - by] == wanted[at]);
        same && (differs < *by || wanted[differs - by] != wanted[differs])
    };
    let good = if suffix.is_empty() { 1 } else { (1..len).find(again).unwrap_or(len) };
    bad.max(good as isize) as usize
}

fn four(bytes: &[u8], at: u64) -> Option<u32> {
    let at = usize::try_from(at).ok()?;
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

fn number_holds(test: &U32Test, bytes: &[u8]) -> bool {
    let mut origin = 0_u64;
    let Some(mut value) = four(bytes, u64::from(test.start)) else { return false };
    for step in &test.steps {
        value = match *step {
            U32Step::And(mask) => value & mask,
            U32Step::Left(bits) => ((u64::from(value) << (bits % 32)) & 0xffff_ffff) as u32,
            U32Step::Right(bits) => value >> (bits % 32),
            U32Step::At(place) => {
                origin += u64::from(value);
                match four(bytes, origin + u64::from(place)) {
                    Some(read) => read,
                    None => return false,
                }
            }
        };
    }
    test.ranges.iter().any(|range| range.low <= value && value <= range.high)
}

/// A classic BPF program over one packet, decoded by the fields of its instructions.
struct Run<'p, 's> {
    bytes: &'p [u8],
    subject: &'p Subject<'s>,
    a: u32,
    x: u32,
    memory: [u32; 16],
}

impl Run<'_, '_> {
    fn run(&mut self, program: &[BpfInstruction]) -> Option<u32> {
        let mut at = 0;
        loop {
            let BpfInstruction { code, jt, jf, k } = *program.get(at)?;
            at += 1;
            let operand = if code & 8 == 0 { k } else { self.x };
            let memory = k as usize % 16;
            match code & 7 {
                0 => self.a = self.load(code, k)?,
                1 if code & 0xe0 == 0xa0 => self.x = (self.at(i64::from(k as i32), 1)? & 15) * 4,
                1 => self.x = self.load(code, k)?,
                2 => self.memory[memory] = self.a,
                3 => self.memory[memory] = self.x,
                4 => self.a = self.calculate(code, operand)?,
                5 if code & 0xf0 == 0 => at += k as usize,
                5 => {
                    let holds = match code >> 4 {
                        1 => self.a == operand,
                        2 => self.a > operand,
                        3 => self.a >= operand,
                        _ => self.a & operand != 0,
                    };
                    at += usize::from(if holds { jt } else { jf });
                }
                6 => return Some(if code & 0x18 == 0x10 { self.a } else { k }),
                _ if code & 0x80 == 0 => self.x = self.a,
                _ => self.a = self.x,
            }
        }
    }

    fn calculate(&self, code: u16, operand: u32) -> Option<u32> {
        let (a, by) = (u64::from(self.a), u64::from(operand));
        let wide = match code >> 4 {
            0 => a + by,
            1 => a + (1 << 32) - by,
            2 => a * by,
            3 => a.checked_div(by)?,
            4 => a | by,
            5 => a & by,
            6 => a << (by % 32),
            7 => a >> (by % 32),
            8 => (1 << 32) - a,
            9 => a.checked_rem(by)?,
            _ => a ^ by,
        };
        Some(wide as u32)
    }

    fn load(&self, code: u16, k: u32) -> Option<u32> {
        let size = match code & 0x18 {
            0 => 4,
            8 => 2,
            _ => 1,
        };
        match code >> 5 {
            0 => Some(k),
            1 if k as i32 >= -0x1000 && (k as i32) < 0 => self.beside((k as i32 + 0x1000) as u32),
            1 => self.at(i64::from(k as i32), size),
            2 => self.at(i64::from(self.x.wrapping_add(k) as i32), size),
            3 => Some(self.memory[k as usize % 16]),
            _ => Some(self.bytes.len() as u32),
        }
    }

    fn beside(&self, what: u32) -> Option<u32> {
        let Packet { family, pkt_type, .. } = &self.subject.packet;
        Some(match what {
            0 if *family == Family::V4 => 0x0800,
            0 => 0x86dd,
            4 => match pkt_type {
                PktType::Host => 0,
                PktType::Broadcast => 1,
                PktType::Multicast => 2,
                PktType::OtherHost => 3,
            },
            20 => self.subject.mark,
            36 => self.subject.cpu,
            40 => self.a ^ self.x,
            56 => self.subject.dice.throw(),
            _ => return None,
        })
    }

    fn at(&self, offset: i64, size: i64) -> Option<u32> {
        let link = (-0x20_0000..-0x10_0000).contains(&offset);
        let from = match offset {
            0.. => offset,
            -0x10_0000..0 => offset + 0x10_0000,
            _ if link && self.subject.has_link_header => offset + 0x20_0000 - 14,
            _ => return None,
        };
        (from..from + size).try_fold(0, |word, at| {
            let byte = match usize::try_from(at) {
                Ok(at) => self.bytes.get(at).copied(),
                Err(_) => self.subject.packet.link.get((at + 14) as usize).copied(),
            };
            Some(word << 8 | u32::from(byte?))
        })
    }
}
