//! Lines captured from the kernel.
