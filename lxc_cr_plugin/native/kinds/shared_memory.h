/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kinds of shared memory: how they are told from each other, contents_object()s all. */
#ifndef CR_SHARED_MEMORY_H
#define CR_SHARED_MEMORY_H

#include "contents.h"

extern const struct kind shared_memory_kind;
extern const struct kind memfd_kind;

/* What a restart cannot map by a path; @huge_page: of the mapping, bytes, 0: ordinary pages. */
struct cr_error *shared_memory_object(struct dump *dump, const struct sight *sight,
				      uint64_t huge_page, uint32_t *id);

bool memfd_claims(const struct bytes *path);
struct cr_error *memfd_object(struct dump *dump, const struct sight *sight, uint32_t *id);
/* Once everything is mapped: a seal may forbid to map more. */
struct cr_error *memfd_seal(struct restore *restore);

#endif
