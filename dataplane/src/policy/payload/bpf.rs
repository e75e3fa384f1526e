//! `-m bpf --bytecode`: a classic BPF program over the packet, from its network header on.
//!
//! [`BpfMatch::new`] lets through what the kernel's checker lets through, less what a
//! packet here does not carry. A checked program ends: its jumps lead forward only.

use crate::packet::{Family, PktType};
use crate::policy::eval::PacketView;

/// Most instructions of a program.
pub const MAX_INSTRUCTIONS: usize = 64;
/// Words of scratch memory.
const MEMORY: usize = 16;

/// From here on, as a signed number, an absolute load asks for something beside the packet.
const ANCILLARY: u32 = 0xffff_f000;
/// From here on a load counts from the network header.
const NETWORK: i32 = -0x10_0000;
/// From here on a load counts from the link-layer header.
const LINK: i32 = -0x20_0000;
/// Bytes of an Ethernet header without tags.
const LINK_HEADER: usize = 14;

/// Instruction codes that the checker and the interpreter share.
mod code {
    pub(super) const LD_IMM: u16 = 0x00;
    pub(super) const LDX_IMM: u16 = 0x01;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const JA: u16 = 0x05;
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const LD_ABS_W: u16 = 0x20;
    pub(super) const LD_ABS_H: u16 = 0x28;
    pub(super) const LD_ABS_B: u16 = 0x30;
    pub(super) const LD_IND_W: u16 = 0x40;
    pub(super) const LD_IND_H: u16 = 0x48;
    pub(super) const LD_IND_B: u16 = 0x50;
    pub(super) const LD_MEM: u16 = 0x60;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const LD_LEN: u16 = 0x80;
    pub(super) const LDX_LEN: u16 = 0x81;
    pub(super) const NEG: u16 = 0x84;
    pub(super) const TXA: u16 = 0x87;
    pub(super) const LDX_MSH: u16 = 0xb1;
    pub(super) const RET_A: u16 = 0x16;
    /// The class of arithmetic, and the operations in it.
    pub(super) const ALU: u16 = 0x04;
    pub(super) const DIV: u16 = 0x30;
    pub(super) const LSH: u16 = 0x60;
    pub(super) const RSH: u16 = 0x70;
    pub(super) const MOD: u16 = 0x90;
    /// The class of jumps, and the comparisons in it.
    pub(super) const JMP: u16 = 0x05;
    pub(super) const JEQ: u16 = 0x10;
    pub(super) const JGT: u16 = 0x20;
    pub(super) const JGE: u16 = 0x30;
    pub(super) const JSET: u16 = 0x40;
    /// The operand is X, not the constant.
    pub(super) const X: u16 = 0x08;
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BpfInstruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Why a program is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BpfError {
    /// None, or more than [`MAX_INSTRUCTIONS`].
    #[error("a program has 1 to {MAX_INSTRUCTIONS} instructions, not {0}")]
    Length(usize),
    /// No such instruction.
    #[error("instruction {at}: there is no code {code}")]
    Code {
        /// Index of the instruction.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// Division by a constant zero, or a shift by 32 bits and more.
    #[error("instruction {0}: its constant makes no sense in arithmetic")]
    Constant(usize),
    /// There are 16 words of scratch memory.
    #[error("instruction {0}: there are {MEMORY} words of memory")]
    Memory(usize),
    /// A word of memory is read that may not have been written.
    #[error("instruction {0}: reads memory that was not written on every way to it")]
    Unwritten(usize),
    /// A jump leaves the program.
    #[error("instruction {0}: jumps out of the program")]
    Jump(usize),
    /// The last instruction is no return.
    #[error("the program does not end with a return")]
    End,
    /// The kernel knows nothing of that number either.
    #[error("instruction {at}: there is nothing at offset {offset}")]
    Ancillary {
        /// Index of the instruction.
        at: usize,
        /// The load's offset.
        offset: i32,
    },
    /// Something that packets carry in the kernel only.
    #[error("instruction {at}: asks for {what}, which a packet does not carry here")]
    Unknown {
        /// Index of the instruction.
        at: usize,
        /// What it loads.
        what: &'static str,
    },
}

/// What an absolute load finds beside the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Protocol,
    PktType,
    Mark,
    Cpu,
    /// No load: A becomes A ^ X.
    XorX,
    Random,
}

/// By offset from [`ANCILLARY`]: what is there, or what the kernel has there.
const BESIDE: [(u32, Result<Beside, &str>); 16] = [
    (0, Ok(Beside::Protocol)),
    (4, Ok(Beside::PktType)),
    (8, Err("the interface's index")),
    (12, Err("a netlink attribute")),
    (16, Err("a nested netlink attribute")),
    (20, Ok(Beside::Mark)),
    (24, Err("the queue")),
    (28, Err("the hardware type")),
    (32, Err("the receive hash")),
    (36, Ok(Beside::Cpu)),
    (40, Ok(Beside::XorX)),
    (44, Err("the VLAN tag")),
    (48, Err("whether there is a VLAN tag")),
    (52, Err("the payload's offset")),
    (56, Ok(Beside::Random)),
    (60, Err("the VLAN protocol")),
];

fn beside(k: u32) -> Option<Result<Beside, &'static str>> {
    let offset = k.wrapping_sub(ANCILLARY);
    BESIDE.iter().find(|(known, _)| *known == offset).map(|(_, found)| *found)
}

/// `-m bpf --bytecode`: a checked program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BpfMatch {
    program: Box<[BpfInstruction]>,
}

impl BpfMatch {
    /// Checks a program.
    ///
    /// # Errors
    /// [`BpfError`] where the kernel would refuse it, or for what is not known here.
    pub fn new(program: Box<[BpfInstruction]>) -> Result<Self, BpfError> {
        if !(1..=MAX_INSTRUCTIONS).contains(&program.len()) {
            return Err(BpfError::Length(program.len()));
        }
        for (at, instruction) in program.iter().enumerate() {
            check(at, instruction, program.len())?;
        }
        match program.last().map(|last| last.code) {
            Some(code::RET_K | code::RET_A) => {}
            _ => return Err(BpfError::End),
        }
        check_memory(&program)?;
        Ok(Self { program })
    }

    /// The program.
    pub fn program(&self) -> &[BpfInstruction] {
        &self.program
    }

    /// Whether its outcome may depend on chance.
    pub fn throws_dice(&self) -> bool {
        let random = |one: &BpfInstruction| {
            is_absolute(one.code) && beside(one.k) == Some(Ok(Beside::Random))
        };
        self.program.iter().any(random)
    }

    /// Whether the program returns something for the packet.
    pub fn matches(&self, packet: &PacketView<'_>) -> bool {
        // A load that fails ends the program with nothing.
        Machine::new(packet).run(&self.program).unwrap_or(0) != 0
    }
}

fn is_absolute(code: u16) -> bool {
    matches!(code, code::LD_ABS_W | code::LD_ABS_H | code::LD_ABS_B)
}

fn is_comparison(code: u16) -> bool {
    let test = code & !code::X;
    [code::JEQ, code::JGT, code::JGE, code::JSET].map(|test| code::JMP | test).contains(&test)
}

fn is_arithmetic(code: u16) -> bool {
    code & !(code::X | 0xf0) == code::ALU
        && (code & 0xf0 <= 0x70 || matches!(code & 0xf0, 0x90 | 0xa0))
}

/// One instruction by itself, in a program of `len`.
fn check(at: usize, one: &BpfInstruction, len: usize) -> Result<(), BpfError> {
    let left = len - at - 1;
    match one.code {
        code::ST | code::STX | code::LD_MEM | code::LDX_MEM if one.k as usize >= MEMORY => {
            Err(BpfError::Memory(at))
        }
        code::JA if one.k as usize >= left => Err(BpfError::Jump(at)),
        code if is_comparison(code) && usize::from(one.jt.max(one.jf)) >= left => {
            Err(BpfError::Jump(at))
        }
        code if is_arithmetic(code) => {
            let sensible = match code ^ code::ALU {
                code::DIV | code::MOD => one.k != 0,
                code::LSH | code::RSH => one.k < 32,
                _ => true,
            };
            if sensible { Ok(()) } else { Err(BpfError::Constant(at)) }
        }
        code if is_absolute(code) && one.k >= ANCILLARY => match beside(one.k) {
            Some(Ok(_)) => Ok(()),
            Some(Err(what)) => Err(BpfError::Unknown { at, what }),
            None => Err(BpfError::Ancillary { at, offset: one.k as i32 }),
        },
        code if is_comparison(code) || is_absolute(code) => Ok(()),
        code::LD_IMM
        | code::LDX_IMM
        | code::ST
        | code::STX
        | code::JA
        | code::RET_K
        | code::RET_A
        | code::TAX
        | code::TXA
        | code::NEG
        | code::LD_MEM
        | code::LDX_MEM
        | code::LD_IND_W
        | code::LD_IND_H
        | code::LD_IND_B
        | code::LD_LEN
        | code::LDX_LEN
        | code::LDX_MSH => Ok(()),
        code => Err(BpfError::Code { at, code }),
    }
}

/// Memory is read only where every way has written it.
fn check_memory(program: &[BpfInstruction]) -> Result<(), BpfError> {
    // By instruction: words that every jump to it has written.
    let mut at_entry = [u16::MAX; MAX_INSTRUCTIONS];
    let mut written = 0_u16;
    for (at, one) in program.iter().enumerate() {
        written &= at_entry[at];
        let mut jump = |by: usize, written: u16| at_entry[at + 1 + by] &= written;
        match one.code {
            code::ST | code::STX => written |= 1 << one.k,
            code::LD_MEM | code::LDX_MEM if written >> one.k & 1 == 0 => {
                return Err(BpfError::Unwritten(at));
            }
            code::JA => {
                jump(one.k as usize, written);
                written = u16::MAX;
            }
            code if is_comparison(code) => {
                jump(usize::from(one.jt), written);
                jump(usize::from(one.jf), written);
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A program's registers and memory over one packet.
struct Machine<'p, 'v> {
    packet: &'p PacketView<'v>,
    /// The IP packet.
    bytes: &'p [u8],
    a: u32,
    x: u32,
    memory: [u32; MEMORY],
}

impl<'p, 'v> Machine<'p, 'v> {
    fn new(packet: &'p PacketView<'v>) -> Self {
        let bytes = packet.parsed.l3_bytes(&packet.frame);
        Self { packet, bytes, a: 0, x: 0, memory: [0; MEMORY] }
    }

    fn run(&mut self, program: &[BpfInstruction]) -> Option<u32> {
        let mut next = 0;
        while let Some(one) = program.get(next) {
            next += 1;
            match one.code {
                code::RET_K => return Some(one.k),
                code::RET_A => return Some(self.a),
                code::JA => next += one.k as usize,
                code if is_comparison(code) => {
                    next += usize::from(if self.holds(one) { one.jt } else { one.jf });
                }
                code if is_arithmetic(code) => self.a = self.arithmetic(one)?,
                _ => self.step(one)?,
            }
        }
        None
    }

    fn operand(&self, one: &BpfInstruction) -> u32 {
        if one.code & code::X != 0 { self.x } else { one.k }
    }

    fn holds(&self, one: &BpfInstruction) -> bool {
        let operand = self.operand(one);
        match one.code & 0xf0 {
            code::JEQ => self.a == operand,
            code::JGT => self.a > operand,
            code::JGE => self.a >= operand,
            _ => self.a & operand != 0,
        }
    }

    fn arithmetic(&self, one: &BpfInstruction) -> Option<u32> {
        let (a, operand) = (self.a, self.operand(one));
        Some(match one.code & 0xf0 {
            0x00 => a.wrapping_add(operand),
            0x10 => a.wrapping_sub(operand),
            0x20 => a.wrapping_mul(operand),
            code::DIV => a.checked_div(operand)?,
            0x40 => a | operand,
            0x50 => a & operand,
            code::LSH => a.wrapping_shl(operand),
            code::RSH => a.wrapping_shr(operand),
            code::MOD => a.checked_rem(operand)?,
            _ => a ^ operand,
        })
    }

    /// Loads and stores.
    fn step(&mut self, one: &BpfInstruction) -> Option<()> {
        let k = one.k;
        let word = k as usize % MEMORY;
        match one.code {
            code::LD_IMM => self.a = k,
            code::LDX_IMM => self.x = k,
            code::ST => self.memory[word] = self.a,
            code::STX => self.memory[word] = self.x,
            code::LD_MEM => self.a = self.memory[word],
            code::LDX_MEM => self.x = self.memory[word],
            code::TAX => self.x = self.a,
            code::TXA => self.a = self.x,
            code::NEG => self.a = self.a.wrapping_neg(),
            code::LD_LEN => self.a = self.bytes.len() as u32,
            code::LDX_LEN => self.x = self.bytes.len() as u32,
            code::LDX_MSH => self.x = (self.load(k, 1)? & 0xf) * 4,
            code if is_absolute(code) && k >= ANCILLARY => self.beside(k)?,
            code::LD_ABS_W => self.a = self.load(k, 4)?,
            code::LD_ABS_H => self.a = self.load(k, 2)?,
            code::LD_ABS_B => self.a = self.load(k, 1)?,
            code::LD_IND_W => self.a = self.load(k.wrapping_add(self.x), 4)?,
            code::LD_IND_H => self.a = self.load(k.wrapping_add(self.x), 2)?,
            code::LD_IND_B => self.a = self.load(k.wrapping_add(self.x), 1)?,
            _ => return None,
        }
        Some(())
    }

    fn beside(&mut self, k: u32) -> Option<()> {
        let parsed = &self.packet.parsed;
        self.a = match beside(k)?.ok()? {
            Beside::Protocol if parsed.family == Family::V4 => 0x0800,
            Beside::Protocol => 0x86dd,
            Beside::PktType => match parsed.pkt_type {
                PktType::Host => 0,
                PktType::Broadcast => 1,
                PktType::Multicast => 2,
                PktType::OtherHost => 3,
            },
            Beside::Mark => self.packet.mark,
            Beside::Cpu => self.packet.scene.cpu,
            Beside::XorX => self.a ^ self.x,
            Beside::Random => self.packet.scene.dice.throw(),
        };
        Some(())
    }

    /// `size` bytes at an offset that may be negative, and then counts from a header.
    fn load(&self, offset: u32, size: usize) -> Option<u32> {
        let offset = offset as i32;
        let bytes = match offset {
            0.. => self.bytes.get(offset as usize..)?,
            NETWORK..0 => self.bytes.get(offset.wrapping_sub(NETWORK) as usize..)?,
            LINK..NETWORK => return self.load_link((offset - LINK) as usize, size),
            _ => return None,
        };
        Some(bytes.get(..size)?.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }

    /// Behind the Ethernet header, which has no tags any more, stands the IP packet.
    fn load_link(&self, offset: usize, size: usize) -> Option<u32> {
        let (parsed, frame) = (&self.packet.parsed, &*self.packet.frame);
        if !self.packet.has_link_header {
            return None;
        }
        let kind = usize::from(parsed.l3).checked_sub(2)?;
        let byte = |at: usize| match at {
            0..12 => frame.get(at),
            12..LINK_HEADER => frame.get(kind + at - 12),
            _ => self.bytes.get(at - LINK_HEADER),
        };
        (offset..offset + size).try_fold(0, |word, at| Some(word << 8 | u32::from(*byte(at)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(text: &[(u16, u8, u8, u32)]) -> Result<BpfMatch, BpfError> {
        let one = |&(code, jt, jf, k): &_| BpfInstruction { code, jt, jf, k };
        BpfMatch::new(text.iter().map(one).collect())
    }

    const YES: (u16, u8, u8, u32) = (6, 0, 0, 1);

    #[test]
    fn what_the_kernel_checks() {
        assert_eq!(program(&[]), Err(BpfError::Length(0)));
        assert_eq!(program(&[YES; 65]), Err(BpfError::Length(65)));
        assert!(program(&[YES; 64]).is_ok());
        assert_eq!(program(&[(7, 0, 0, 1)]), Err(BpfError::End));
        for code in [8, 14, 0x1d + 0x50, 0x8c, 0xb4, 0xc4, 0xa1, 0x1000, 0x0e] {
            assert_eq!(program(&[(code, 0, 0, 1), YES]), Err(BpfError::Code { at: 0, code }));
        }
        for code in [0x34, 0x94] {
            assert_eq!(program(&[(code, 0, 0, 0), YES]), Err(BpfError::Constant(0)));
            assert!(program(&[(code | 8, 0, 0, 0), YES]).is_ok(), "by X");
        }
        assert_eq!(program(&[(0x64, 0, 0, 32), YES]), Err(BpfError::Constant(0)));
        assert_eq!(program(&[(2, 0, 0, 16), YES]), Err(BpfError::Memory(0)));
        assert_eq!(program(&[(0x15, 0, 1, 0), YES]), Err(BpfError::Jump(0)));
        assert_eq!(program(&[(5, 0, 0, 1), YES]), Err(BpfError::Jump(0)));
        assert_eq!(program(&[(5, 0, 0, u32::MAX), YES]), Err(BpfError::Jump(0)));
        assert_eq!(
            program(&[(0x20, 0, 0, ANCILLARY + 2), YES]),
            Err(BpfError::Ancillary { at: 0, offset: -4094 })
        );
        assert!(matches!(
            program(&[(0x30, 0, 0, ANCILLARY + 8), YES]),
            Err(BpfError::Unknown { .. })
        ));
    }

    #[test]
    fn memory_is_written_on_every_way_before_it_is_read() {
        assert_eq!(program(&[(0x60, 0, 0, 3), YES]), Err(BpfError::Unwritten(0)));
        assert!(program(&[(2, 0, 0, 3), (0x60, 0, 0, 3), YES]).is_ok());
        let around = [(0x15, 1, 0, 0), (2, 0, 0, 3), (0x60, 0, 0, 3), YES];
        assert_eq!(program(&around), Err(BpfError::Unwritten(2)));
    }
}
