//! The worker loop: ports, engine and neighbour waiting room on one core.
