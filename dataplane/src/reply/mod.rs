//! Packets the router itself makes: ICMP errors, REJECT answers, TCP resets.
