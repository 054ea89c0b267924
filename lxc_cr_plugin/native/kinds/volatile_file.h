/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_VOLATILE_FILE_H
#define CR_VOLATILE_FILE_H

#include "contents.h"

extern const struct kind volatile_file_kind;

/* The object of a file that lay at @path; @deleted: it has no name any more. */
struct cr_error *volatile_file_object(struct dump *dump, const struct sight *sight,
				      const struct bytes *path, bool deleted, uint32_t *id);

#endif
