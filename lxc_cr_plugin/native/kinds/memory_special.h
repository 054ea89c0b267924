/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mappings that the kernel makes at execve(2) and nobody else can: vvar, vdso. They are moved. */
#ifndef CR_MEMORY_SPECIAL_H
#define CR_MEMORY_SPECIAL_H

#include "memory.h"

/* Refuse a process that has unmapped what a restart needs of them, or a child of it; or one with
 * segments of its own. CR_GONE: it runs, and just executes a program. */
struct cr_error *special_check(struct dump *dump, const struct process *process);

/* Of a process new from execve(2): struct vma. */
struct cr_error *special_find(struct pool *pool, const struct list *maps, struct list *ret);
/* The one among them that holds code; NULL: none. */
const struct vma *special_vdso(const struct list *vmas);
/* Unmap everything in @process but the program area and them. */
struct cr_error *special_unmap_others(struct restore *restore, struct process *process);
/* Move each to where the image has it, and unmap what the image has not. */
struct cr_error *special_place(struct restore *restore, struct process *process);

#endif
