//! The firewall at a glance: samples of what the daemon counts, the rates between two of them,
//! and the screen. It asks as any client does, and costs the workers nothing.

pub mod frame;
pub mod sample;
#[cfg(test)]
mod tests;
pub mod view;

pub use frame::Frame;
pub use sample::Sample;
