/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a look has noted of open file descriptions that may have to do with locks. */
#ifndef CR_LOCKS_NOTED_H
#define CR_LOCKS_NOTED_H

#include "locks.h"

/* Shown by a descriptor, or kept by a mapping. */
struct noted_file {
	uint64_t file;	       /* struct file of the kernel */
	uint64_t context;      /* struct file_lock_context of its inode */
	struct object *object; /* NULL before the stop, and of a mapping until it is needed */
	ino_t inode;
	const char *name;
	struct process *process;
	/* of a mapping only */
	const char *link; /* of /proc/PID */
	struct bytes path;
	bool concerns; /* it keeps a lock, or a descriptor shows one on the file */
};

/* Under the stop: the description that @noted keeps becomes an object. locks_mapped.c */
struct cr_error *locks_dump_mapped(struct dump *dump, struct noted_file *noted);
/* A process that maps the description, the one with number @maker on this host if it does; NULL: none. */
const struct process *locks_find_mapper(const struct dump *dump, uint64_t file, pid_t maker);

#endif
