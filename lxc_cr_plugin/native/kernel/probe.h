/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Settings that nothing else shows, and whose places in the kernel differ from kernel to kernel: found
 * out by a child of ours that makes them.
 */
#ifndef CR_KERNEL_PROBE_H
#define CR_KERNEL_PROBE_H

#include "peek.h"
#include "tasks.h"

struct kernel_bits {
	uint64_t no_cpuid;    /* of thread_flags: arch_prctl(2) ARCH_SET_CPUID, 0 */
	uint64_t thp_advised; /* of mm_flags: PR_SET_THP_DISABLE, PR_THP_DISABLE_EXCEPT_ADVISED */
};

/*
 * Landlock. Security modules share the memory that kernel_task.security is the address of, and which
 * word of it is whose is decided when the kernel starts.
 */
struct kernel_landlock {
	bool exists, found;
	uint32_t place; /* of the domain, in that memory, bytes */
};

/* Both fork: not inside the stop. */
struct cr_error *kernel_probe(struct kernel_reader *reader, struct pool *pool,
			      struct kernel_bits *ret);
struct cr_error *kernel_landlock_find(struct kernel_reader *reader, struct kernel_peek *peek,
				      struct pool *pool, struct kernel_landlock *ret);
/* *ret: is the task restricted? False where that cannot be found out. */
struct cr_error *kernel_landlock_restricts(const struct kernel_landlock *landlock,
					   struct kernel_peek *peek, const struct kernel_task *task,
					   bool *ret);

#endif
