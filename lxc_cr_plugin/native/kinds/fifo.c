/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>

#include "pipe.h"

static bool fifo_claims(const struct descriptor *descriptor)
{
	return S_ISFIFO(descriptor->stat.st_mode) && descriptor->path.data[0] == '/';
}

/* Opened for both directions it blocks for nobody, and both ends exist for the opens that follow.
 */
static struct cr_error *make_fifo(struct restore *restore, const struct pipe_end *end, int ends[2])
{
	struct stat stat;

	TRY(restore_open(restore, &end->file.path, O_RDWR, &ends[0]));
	ends[1] = ends[0];
	if (fstat(ends[0], &stat) < 0 || !S_ISFIFO(stat.st_mode))
		return error_new(CR_HOST, "'%s' is not a fifo any more", end->file.path.data);
	return NULL;
}

static struct cr_error *fifo_restore(struct restore *restore, struct object *object,
				     const void *state)
{
	return pipe_restore_end(restore, object, state, make_fifo);
}

const struct kind fifo_kind = {
	.name = "fifo",
	.doc = "Open fifo, with what nobody has read yet",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct pipe_end),
	.fields = pipe_fields,
	.claims = fifo_claims,
	.check_file = file_check_path,
	.dump_file = pipe_dump,
	.restore_file = fifo_restore,
};
