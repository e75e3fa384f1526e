//! TCP state tests.
