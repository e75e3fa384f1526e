//! Evaluates one match against one packet.
