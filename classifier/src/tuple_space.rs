//! Tuple-space search: one hash table per combination of masks.
