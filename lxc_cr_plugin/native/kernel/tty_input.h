/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was typed on a terminal and not read yet: reading it would take it away. */
#ifndef CR_KERNEL_TTY_INPUT_H
#define CR_KERNEL_TTY_INPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

struct kernel_tty_input {
	uint64_t tty; /* struct tty_struct: its identity */
	bool waits;   /* more of it has not come to the line discipline yet */
	struct bytes text;
	struct bytes ends; /* as long: 1 where a line ends with this byte; empty: no lines */
};

struct kernel_tty_reader;

/* @peek stays the caller's, and stays open as long. */
struct cr_error *kernel_tty_reader_open(const struct btf *btf, struct kernel_peek *peek,
					struct kernel_tty_reader **ret);
void kernel_tty_reader_close(struct kernel_tty_reader *reader); /* NULL is fine */

/* Of the terminal behind struct @file, whose line discipline is N_TTY. */
struct cr_error *kernel_tty_input_read(struct kernel_tty_reader *reader, uint64_t file,
				       struct pool *pool, struct kernel_tty_input *ret);

#endif
