/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which bits of the kernel's flags stand for settings that nothing else shows, and whose places differ
 * from kernel to kernel: found out by a child of ours that makes the settings.
 */
#ifndef CR_KERNEL_PROBE_H
#define CR_KERNEL_PROBE_H

#include "tasks.h"

/* 0: this kernel or processor has it not. */
struct kernel_bits {
	uint64_t no_cpuid;    /* of thread_flags: arch_prctl(2) ARCH_SET_CPUID, 0 */
	uint64_t thp_advised; /* of mm_flags: PR_SET_THP_DISABLE, PR_THP_DISABLE_EXCEPT_ADVISED */
};

/* Forks: not inside the stop. */
struct cr_error *kernel_probe(struct kernel_reader *reader, struct pool *pool,
			      struct kernel_bits *ret);

#endif
