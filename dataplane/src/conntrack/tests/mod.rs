//! Tests of tracking on simulated time.
