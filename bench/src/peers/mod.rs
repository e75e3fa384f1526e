//! Who can stand between the generator's devices: Portcullis, forwarders that look at
//! nothing, the kernel with the same rules, DPDK.

mod own;
mod policy;
mod subject;

pub(crate) use policy::Policy;
pub(crate) use subject::{Kind, Settings, Subject};
