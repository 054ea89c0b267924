/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases as a tracepoint of the kernel tells them (filelock:time_out_leases): it is passed for each
 * lease of a file whenever somebody asks for one, with the original type and the deadlines. For
 * kernels whose type information does not describe leases. Needs tracefs, which is mounted for
 * nobody but us, in an instance of its own: what others trace goes on.
 */
#ifndef CR_KERNEL_LEASE_TRACE_H
#define CR_KERNEL_LEASE_TRACE_H

#include "locks.h"

struct lease_trace;

/* Takes tens of milliseconds: not inside the stop where it can be helped. CR_HOST: no tracefs, or no
 * such tracepoint. */
struct cr_error *lease_trace_open(struct lease_trace **ret);
/* NULL is fine; takes a tenth of a second. */
void lease_trace_close(struct lease_trace *trace);

/* Flags, original type and deadlines of the lease that the open file description @file (struct file)
 * holds, into @ret; 0: of any that holds one of the file. @fd: our copy of a descriptor of it.
 * CR_GONE: it holds none. */
struct cr_error *lease_trace_read(struct lease_trace *trace, int fd, uint64_t file,
				  struct pool *pool, struct kernel_lock *ret);

#endif
