//! Wire formats: checked views over bytes and the frame parser.
