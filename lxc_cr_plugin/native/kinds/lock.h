/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File locks and those who wait for them, as an image holds them. */
#ifndef CR_LOCK_H
#define CR_LOCK_H

#include "../dump.h"
#include "../restore.h"

/* Result of a call that a stop has interrupted and that the kernel enters again. */
enum { ERESTARTSYS = 512 };

enum lock_sort {
	LOCK_POSIX, /* F_SETLK: of a process */
	LOCK_OFD,   /* F_OFD_SETLK: of an open file description */
	LOCK_FLOCK, /* flock(2): the same */
	LOCK_SORTS,
};

struct lock {
	uint32_t sort; /* enum lock_sort */
	uint32_t type; /* F_RDLCK, F_WRLCK */
	uint64_t start, end;
	int32_t pid, fd; /* who sets it, through which descriptor; -1: by a passing one */
	uint32_t object; /* the open file description behind it */
};

struct lock_waiter {
	uint32_t sort;
	int32_t pid, tid;
	int32_t fd;
};

extern const struct kind lock_kind;
extern const struct kind lock_waiter_kind;

enum lock_sort lock_sort_of(const struct kernel_lock *lock);

/* Whether a stopped thread with these registers was waiting for a lock, and for which sort. */
bool lock_wait_of(const struct arch_regs *regs, struct lock_waiter *ret);

/* Let a stopped thread go that waits for a lock; back when it stands in the queue again, or when
 * that takes too long. One that has a signal to handle first stays where it is. */
struct cr_error *lock_waiter_release(pid_t tid);

/* Locks that only mappings keep, before anybody has its descriptors: closing one loses POSIX locks. */
struct cr_error *locks_restore_mapped(struct restore *restore);
/* All other locks, by their owners, in the kernel's order; when all else is as it should be. */
struct cr_error *locks_restore(struct restore *restore);
/* Those who wait enter the queues again, one after the other. */
size_t lock_waiters_count(const struct restore *restore);
struct cr_error *lock_waiters_restore(struct restore *restore);

#endif
