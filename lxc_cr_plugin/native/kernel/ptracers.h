/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may trace whom by prctl(2) PR_SET_PTRACER: a list of the Yama module's, which shows it to
 * nobody. It is in force where kernel.yama.ptrace_scope is 1.
 */
#ifndef CR_KERNEL_PTRACERS_H
#define CR_KERNEL_PTRACERS_H

#include <stdbool.h>
#include <sys/types.h>

#include "../pool.h"
#include "btf.h"
#include "peek.h"

enum { PTRACER_ANYBODY = -1 };

/* Host numbers. */
struct kernel_ptracer {
	pid_t tracee; /* process */
	pid_t tracer; /* thread, or PTRACER_ANYBODY */
};

/* Where the list is; address 0: it is not in force, or (hidden) cannot be found. */
struct kernel_ptracer_layout {
	bool hidden;
	uint64_t address;
	/* of struct ptrace_relation, and of struct task_struct */
	uint32_t tracer, tracee, invalid, node, pid;
};

void kernel_ptracers_locate(const struct btf *btf, struct kernel_ptracer_layout *ret);

/* *ret: list of struct kernel_ptracer, of the whole host. */
struct cr_error *kernel_ptracers_read(const struct kernel_ptracer_layout *layout,
				      struct kernel_peek *peek, struct pool *pool,
				      struct list *ret);

#endif
