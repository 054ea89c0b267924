/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a look has noted of open file descriptions that may have to do with locks. */
#ifndef CR_LOCKS_NOTED_H
#define CR_LOCKS_NOTED_H

#include "locks.h"

/* Shown by a descriptor, or kept by a mapping; its file was locked by anybody, once. */
struct noted_file {
	uint64_t file;	       /* struct file of the kernel */
	uint64_t context;      /* struct file_lock_context of its inode */
	struct object *object; /* NULL before the stop, and of a mapping until it is needed */
	ino_t inode;
	struct process *process;
	struct bytes path;
	int fd;		  /* -1: of a mapping */
	uint64_t flags;	  /* open(2) */
	const char *link; /* of /proc/PID, of a mapping only */
	bool waited;	  /* a thread waits for a lock on it */
	bool concerns;	  /* somebody here has locked the file, or waits for it */
};

/* All descriptions of one inode that were noted. */
struct noted_files {
	struct noted_file *items;
	size_t count;
};

/* The kernel's type information does not describe locks, or a test wants it so: locks_shown.c */
bool locks_without_members(const struct dump *dump);
/* Locks and leases of an inode as /proc shows them, who waits behind who holds. *ret: list of struct
 * kernel_lock. */
struct cr_error *locks_read_shown(struct dump *dump, const struct noted_files *files,
				  struct list *ret);
/* Does somebody have a lease on an inode of this number? */
struct cr_error *locks_leased_shown(struct dump *dump, ino_t inode, bool *ret);

/* Under the stop: the description that @noted keeps becomes an object. locks_mapped.c */
struct cr_error *locks_dump_mapped(struct dump *dump, struct noted_file *noted);
/* For messages. */
const char *locks_name(struct dump *dump, const struct noted_file *noted);

#endif
