/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The open files of a process, read by a BPF iterator (iter/task_file): what fdinfo, readlink(2)
 * and a handful of calls would tell of each, and which descriptors show the same open file
 * description.
 */
#ifndef CR_KERNEL_FILES_H
#define CR_KERNEL_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"

struct kernel_file {
	int32_t fd;
	uint32_t flags; /* f_flags: open(2), without O_CLOEXEC */
	bool close_on_exec;
	uint64_t file;	     /* struct file: its identity, to be compared and nothing else */
	uint64_t position;   /* f_pos */
	uint64_t locks;	     /* struct file_lock_context of the inode; 0: it never had any */
	uint64_t marks;	     /* struct fsnotify_mark_connector of the inode; 0: nobody watches it */
	uint32_t write_hint; /* of the inode: F_SET_RW_HINT */
	/* who gets signals about it: struct pid, its identity, 0: nobody; F_SETSIG; who said so */
	uint64_t owner;
	int32_t owner_signal;
	uint32_t owner_uid, owner_euid;
	/* what the inode holds of stat(2), not the times but one, nor st_blocks and st_blksize; NULL:
	 * its file system may tell something else */
	struct stat *stat;
	struct bytes path; /* as readlink(2) on /proc/PID/fd/N; empty: not known, too long */
};

struct kernel_file_program; /* the loaded program, one for all processes */

/* Parses BTF, assembles and loads. Takes tens of milliseconds: not inside the stop. */
struct cr_error *kernel_file_program_open(const struct btf *btf, struct kernel_file_program **ret);
void kernel_file_program_close(struct kernel_file_program *program); /* NULL is fine */

/* *ret: list of struct kernel_file in @pool, ascending. Empty when the process has none (zombie) or
 * is gone; @tgid as the caller's pid namespace knows it. */
struct cr_error *kernel_files_read(struct kernel_file_program *program, pid_t tgid,
				   struct pool *pool, struct list *ret);

#endif
