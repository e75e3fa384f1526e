//! Ports: where frames come from and go to.
//!
//! A [`Frame`] is a consumed token: whoever holds it owns a chunk of the pool;
//! a full ring hands it back.
