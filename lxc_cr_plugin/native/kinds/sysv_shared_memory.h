/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SYSV_SHARED_MEMORY_H
#define CR_SYSV_SHARED_MEMORY_H

#include "contents.h"
#include "memory.h"

extern const struct kind sysv_shared_memory_kind;

/* Does a mapping with this name show a segment? */
bool sysv_claims(const struct bytes *name);
/* The object of a segment that is mapped. */
struct cr_error *sysv_object(struct dump *dump, const struct sight *sight, uint32_t *id);
/* Segments of the namespace that nobody has mapped; this process is in that namespace. */
struct cr_error *sysv_dump_detached(struct dump *dump);

/* Map [start, end) of @vma, which shows the segment @object. */
struct cr_error *sysv_map(struct restore *restore, struct process *process, const struct vma *vma,
			  uint64_t start, uint64_t end);
/* Once everything is mapped: segments that nobody maps, owners, marks of removal. */
struct cr_error *sysv_finish(struct restore *restore);

#endif
