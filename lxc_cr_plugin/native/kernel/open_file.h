/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One open file description by its address in the kernel: for those that no descriptor shows. */
#ifndef CR_KERNEL_OPEN_FILE_H
#define CR_KERNEL_OPEN_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../error.h"
#include "btf.h"
#include "peek.h"

struct kernel_open_file {
	uint32_t flags; /* f_flags: open(2) */
	uint64_t position;
	pid_t owner;	     /* who gets signals about it, initial pid namespace; 0: nobody */
	uint32_t owner_type; /* F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP */
	int32_t owner_signal;
	uint32_t owner_uid, owner_euid;
	/* of its inode, as in struct kernel_file */
	uint64_t inode, locks, marks;
	uint32_t write_hint;
	uint64_t owner_address; /* struct pid */
};

struct kernel_open_files;

/* CR_HOST when this kernel has other structs. */
struct cr_error *kernel_open_files_open(const struct btf *btf, struct kernel_peek *peek,
					struct kernel_open_files **ret);
void kernel_open_files_close(struct kernel_open_files *files); /* NULL is fine */

/* @file came out of an iterator, and is held by somebody who stands still. */
struct cr_error *kernel_open_file_read(struct kernel_open_files *files, uint64_t file,
				       struct kernel_open_file *ret);

/* EFD_... of the eventfd behind @file; fdinfo tells them since Linux 6.5. */
struct cr_error *kernel_eventfd_flags(struct kernel_open_files *files, uint64_t file,
				      uint32_t *ret);

/* Whether the timer of the timerfd behind @file is still to fire; not for alarms. */
struct cr_error *kernel_timerfd_is_queued(struct kernel_open_files *files, uint64_t file,
					  bool *ret);

#endif
