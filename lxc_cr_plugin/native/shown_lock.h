/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line of /proc/locks, or behind "lock:" in /proc/PID/fdinfo/FD: the same but for its number. */
#ifndef CR_SHOWN_LOCK_H
#define CR_SHOWN_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct shown_lock {
	const char *text; /* of the line, from its first word on */
	char sort[12];	  /* POSIX, OFDLCK, FLOCK, LEASE, DELEG */
	char type[12];	  /* READ, WRITE; UNLCK: a lease that is to go */
	int32_t pid;	  /* initial pid namespace; of OFD locks -1 */
	bool breaking, waits;
	unsigned int major, minor; /* of the file system, which stat(2) may tell otherwise */
	unsigned long inode;
	uint64_t start, end; /* bytes, both inclusive; INT64_MAX: to the end of the file */
};

/* false: it is something else, such as who waits for the end of a lease. */
bool shown_lock_parse(const char *line, struct shown_lock *ret);

#endif
