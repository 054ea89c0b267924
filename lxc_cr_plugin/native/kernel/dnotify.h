/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directory notification (F_NOTIFY) as the kernel holds it: a mark of the directory's inode, which
 * lists who wants to hear by which description and number. /proc shows nothing of it.
 */
#ifndef CR_KERNEL_DNOTIFY_H
#define CR_KERNEL_DNOTIFY_H

#include <stdint.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

struct kernel_notice {
	uint64_t file;	/* struct file: to be compared */
	uint64_t files; /* files_struct of who asked */
	int32_t fd;	/* by this number */
	uint32_t mask;	/* FS_ of include/linux/fsnotify_backend.h */
};

struct kernel_dnotify;

/* Reads /proc/kallsyms: not inside the stop where it can be helped. CR_HOST
 * with a remedy where this kernel does not tell. */
struct cr_error *kernel_dnotify_open(const struct btf *btf, struct kernel_peek *peek,
				     struct kernel_dnotify **ret);
void kernel_dnotify_close(struct kernel_dnotify *dnotify); /* NULL is fine */

/* @marks: of an inode (kernel_file.marks). *ret: list of struct kernel_notice. */
struct cr_error *kernel_dnotify_read(struct kernel_dnotify *dnotify, uint64_t marks,
				     struct pool *pool, struct list *ret);

#endif
