//! The static part of a rule, as the classifier indexes it.

use crate::field::{Address, ClassSet, Masked, PortRange};
use crate::key::Key;

/// A conjunction over the fields of a [`Key`]. The default matches every key.
///
/// Anything a conjunction cannot say exactly (a negated range, a list of
/// ports, a dynamic match) is left wider here and checked afterwards by the
/// caller, which then asks again from the next position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule<A> {
    /// Source address under a mask.
    pub src: Masked<A>,
    /// Destination address under a mask.
    pub dst: Masked<A>,
    /// Source port range, or ICMP type range.
    pub sport: PortRange,
    /// Destination port range, or ICMP code range.
    pub dport: PortRange,
    /// Protocol; mask 0 or 0xff in practice.
    pub proto: Masked<u8>,
    /// TCP flags under a mask.
    pub flags: Masked<u8>,
    /// Allowed input interfaces.
    pub iif: ClassSet,
    /// Allowed output interfaces.
    pub oif: ClassSet,
    /// Allowed connection-state classes.
    pub state: ClassSet,
    /// Allowed layer 4 availability classes.
    pub l4: ClassSet,
}

impl<A: Address> Rule<A> {
    /// Whether the key satisfies every field. This is the definition that all
    /// faster structures are tested against.
    pub fn matches(&self, key: &Key<A>) -> bool {
        self.src.matches(key.src)
            && self.dst.matches(key.dst)
            && self.sport.matches(key.sport)
            && self.dport.matches(key.dport)
            && self.proto.matches(key.proto)
            && self.flags.matches(key.flags)
            && self.iif.matches(key.iif)
            && self.oif.matches(key.oif)
            && self.state.matches(key.state)
            && self.l4.matches(key.l4)
    }
}
