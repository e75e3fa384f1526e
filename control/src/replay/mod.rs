//! Replay: the whole engine over captures, with their timestamps as its clock.

pub mod capture;
pub mod topology;
