//! Packets followed on their way: which ([`filter`]), what is told of them ([`tell`]), for
//! people ([`text`]) and in capture files ([`pcapng`]). What takes them from the workers is
//! `dataplane::tap`.

pub mod filter;
pub mod pcapng;
pub mod tell;
pub mod text;

pub use filter::FilterError;
