/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was typed on a terminal and not read yet. */
#ifndef CR_TTY_INPUT_H
#define CR_TTY_INPUT_H

#include <asm/termbits.h>

#include "../dump.h"
#include "../restore.h"

enum { TTY_INPUT_MAX = 4096 };

struct tty_input {
	struct bytes text;
	struct bytes ends;
};

extern const struct field tty_input_fields[];

/* Of the terminal behind @descriptor, @fd is one of ours for it. */
struct cr_error *tty_input_dump(struct dump *dump, const struct descriptor *descriptor, int fd,
				struct tty_input *ret);
/* Type it again. @fd: the terminal, with the settings in @termios, which it has afterwards. */
struct cr_error *tty_input_restore(const struct tty_input *input, int fd,
				   const struct termios2 *termios);

#endif
