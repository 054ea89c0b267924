/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_FILES_H
#define CR_FILES_H

#include "../restore.h"

struct files {
	struct list descriptors; /* struct files_row, ascending */
	struct hash by_object;	 /* the first of them that were looked for once */
	size_t found;
};

struct files_row {
	int32_t fd;
	uint32_t object;
	uint32_t close_on_exec;
};

extern const struct field files_row_fields[];
extern const struct kind files_kind;

/* The lowest of its descriptors, or of a table it shares, that show @object; -1: none does. */
int files_number(struct image *image, const struct process *process, const struct object *object);
/* Does its descriptor @fd, or that of a table it shares, show @object? */
bool files_show(const struct process *process, int fd, const struct object *object);
/* Of every object that a descriptor shows: who has it, the first process in the image's order. */
void files_find_holders(struct image *image);
/* The highest descriptor number in the image, -1: there is none. */
int files_highest(const struct image *image);

#endif
