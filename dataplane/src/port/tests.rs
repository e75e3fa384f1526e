//! Tests of the ports that need no kernel.
