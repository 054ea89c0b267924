/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File locks and leases as the kernel holds them (struct file_lock_context): owner, description,
 * range, type, the original type of a lease that is being broken, its deadlines, and who waits
 * behind whom. /proc shows half of this.
 */
#ifndef CR_KERNEL_LOCKS_H
#define CR_KERNEL_LOCKS_H

#include <stdbool.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

/* struct file_lock_core.flc_flags, include/linux/filelock.h */
enum {
	KERNEL_FL_POSIX = 1,
	KERNEL_FL_FLOCK = 2,
	KERNEL_FL_DELEG = 4,
	KERNEL_FL_LEASE = 32,
	KERNEL_FL_DOWNGRADE_PENDING = 256,
	KERNEL_FL_UNLOCK_PENDING = 512,
	KERNEL_FL_OFDLCK = 1024,
	KERNEL_FL_LAYOUT = 2048,
};

struct kernel_lock {
	uint64_t owner; /* files_struct of a POSIX lock, else struct file: to be compared */
	uint64_t file;
	uint32_t flags; /* KERNEL_FL_ */
	uint32_t type;	/* F_RDLCK or F_WRLCK; of a lease: before it is broken */
	pid_t pid;	/* thread group that made it, initial pid namespace; it may have ended */
	bool waits;	/* asked for, not held: its sleeper stands behind the last lock held */
	pid_t sleeper;	/* thread that waits, initial pid namespace; 0: it was just woken */
	uint64_t start, end;		     /* not of leases; bytes, both inclusive */
	uint64_t break_time, downgrade_time; /* leases: jiffies, valid while PENDING */
	int32_t fd;   /* leases: the number that a signal tells; -1: none, or not known */
	bool guessed; /* leases that are being broken: times unknown, the type perhaps */
};

struct kernel_locks;

/* Parses BTF and loads a program: not inside the stop where it can be helped. CR_HOST with a remedy
 * when this kernel has another idea of locks. */
struct cr_error *kernel_locks_open(const struct btf *btf, struct kernel_peek *peek,
				   struct kernel_locks **ret);
void kernel_locks_close(struct kernel_locks *locks); /* NULL is fine */

/* All locks and leases of an inode (kernel_file.locks) in the kernel's order, each followed by who waits for it, first
 * come first. *ret: list of struct kernel_lock. CR_GONE: it changed while it was read. */
struct cr_error *kernel_locks_read(struct kernel_locks *locks, uint64_t context, struct pool *pool,
				   struct list *ret);

/* The clock of deadlines, and how long one of its ticks takes. */

#endif
