/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The entries of an epoll instance, as the kernel keeps them: fdinfo shows neither which open file
 * description an entry is for, nor whether it waits to be reported. */
#ifndef CR_KERNEL_EPOLLS_H
#define CR_KERNEL_EPOLLS_H

#include <stdbool.h>
#include <stdint.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

struct kernel_epoll_entry {
	uint64_t file; /* struct file, as in struct kernel_file */
	int32_t fd;    /* number when it was added */
	uint32_t events;
	uint64_t data;
	bool listed; /* in the ready list: epoll_wait(2) will look at it */
};

struct kernel_epolls;

/* @peek is used until it is closed, and stays the caller's. */
struct cr_error *kernel_epolls_open(const struct btf *btf, struct kernel_peek *peek,
				    struct kernel_epolls **ret);
void kernel_epolls_close(struct kernel_epolls *epolls); /* NULL is fine */

/* Of the instance behind struct @file: list of struct kernel_epoll_entry. */
struct cr_error *kernel_epoll_read(struct kernel_epolls *epolls, uint64_t file, struct pool *pool,
				   struct list *ret);

#endif
