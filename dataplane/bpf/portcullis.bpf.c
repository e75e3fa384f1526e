// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
// The programs of Portcullis, built into one object so that they share maps:
// xdp.h on what a port receives, host.h on what the machine itself sends and is
// delivered, common.h what both need.

#include "common.h"
#include "xdp.h"
#include "host.h"

// Some of what the programs ask of the kernel, it tells to programs under the GPL only.
char license_text[] SEC("license") = "Dual MIT/GPL";
