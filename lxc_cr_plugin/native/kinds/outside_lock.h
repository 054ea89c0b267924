/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_OUTSIDE_LOCK_H
#define CR_OUTSIDE_LOCK_H

#include "../locks_noted.h"

extern const struct kind outside_lock_kind;

/* The user does not mind that somebody outside has locked the file: the image says so. @stat: of the
 * holder. */
struct cr_error *outside_lock_note(struct dump *dump, const struct kernel_lock *lock,
				   const struct noted_file *file, const struct proc_stat *stat);

#endif
