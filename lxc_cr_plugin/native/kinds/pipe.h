/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What pipes and fifos share: a buffer that several open file descriptions look at. */
#ifndef CR_PIPE_H
#define CR_PIPE_H

#include "file.h"

struct pipe_end {
	struct file file;
	uint64_t capacity;    /* bytes, F_GETPIPE_SZ */
	bool first;	      /* of the ends of this pipe: it carries the contents */
	bool packets;	      /* written with O_DIRECT: boundaries are kept */
	struct list contents; /* struct pipe_chunk, oldest first */
};

struct pipe_chunk {
	struct bytes data;
};

extern const struct field pipe_fields[];

struct cr_error *pipe_dump(struct dump *dump, const struct descriptor *descriptor, void *state);

/*
 * Give @object an end in the access mode of its flags. The first end of a pipe makes it by @make
 * (two descriptors, or one for both directions twice) and fills it; the others open it anew.
 */
struct cr_error *pipe_restore_end(
	struct restore *restore, struct object *object, const struct pipe_end *end,
	struct cr_error *(*make)(struct restore *restore, const struct pipe_end *end, int ends[2]));

/* Close the ends that nobody took. */
void pipe_finish(struct restore *restore);

#endif
