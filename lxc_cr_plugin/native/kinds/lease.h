/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File leases (F_SETLEASE), whole or being broken. */
#ifndef CR_LEASE_H
#define CR_LEASE_H

#include "../dump.h"
#include "../restore.h"

struct lease;

extern const struct kind lease_kind;

/* Who waits in open(2) or truncate(2) for a lease to end. A stop takes them out of its queue. */
struct lease_waiter {
	uint64_t file; /* struct file of the lease */
	pid_t tid;     /* initial pid namespace */
};

/* @fd: a descriptor of @owner that shows @file; -1: only a mapping does. */
struct cr_error *lease_dump(struct dump *dump, const struct kernel_lock *lock,
			    const struct object *file, const struct process *owner, int fd);

/* Of an image that was read: a holder and a file. */
struct cr_error *lease_validate(const struct image *image, const struct lease *lease);

/* Once the image is read: where its leases are. */
struct cr_error *leases_find(struct restore *restore);
/* Read leases on what is open for writing: before others have the file open. */
struct cr_error *leases_restore_forced(struct restore *restore);
/* Those of descriptions that only mappings keep, before anybody has its descriptors. */
struct cr_error *leases_restore_mapped(struct restore *restore);
/* Leases of one process, while it has its privileges. Nobody is signalled about them yet. */
struct cr_error *leases_restore(struct restore *restore, struct process *process);
/* Whether signals about this description must wait for leases_break(). */
bool lease_is_breaking(const struct restore *restore, const struct object *file);
/* What takes its time is done before the release R is chosen; how much later R must be. */
struct cr_error *leases_prepare(struct restore *restore);
uint64_t leases_prepare_ns(const struct restore *restore);
/* Just before R: begin again what was being broken, so that it ends at R and what was left. */
struct cr_error *leases_break(struct restore *restore);

#endif
