/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who gets signals about an open file: F_SETOWN_EX, F_SETSIG, O_ASYNC. */
#ifndef CR_FILE_OWNER_H
#define CR_FILE_OWNER_H

#include "file.h"

struct cr_error *file_dump_owner(const struct descriptor *descriptor, struct file *file);
/* From the host's number to the container's, when all tasks are known. */
struct cr_error *file_resolve_owner(struct dump *dump, struct object *object);
/* When all tasks stand. */
struct cr_error *file_restore_owner(struct restore *restore, struct object *object);

#endif
