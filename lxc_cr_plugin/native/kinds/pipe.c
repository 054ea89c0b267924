/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pipe.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"

enum { LARGEST_PIPE = 1 << 30 };

static const struct field chunk_fields[] = {
	FIELD_BYTES(struct pipe_chunk, data, LARGEST_PIPE, "bytes, or one packet"),
	FIELD_END,
};

const struct field pipe_fields[] = {
	FIELD_FILE(struct pipe_end),
	FIELD_UINT(struct pipe_end, capacity, PAGE, LARGEST_PIPE, "bytes, F_SETPIPE_SZ"),
	FIELD_BOOL(struct pipe_end, first, "this end's record carries the contents"),
	FIELD_BOOL(struct pipe_end, packets, "packet mode (O_DIRECT): boundaries are kept"),
	FIELD_LIST(struct pipe_end, contents, struct pipe_chunk, chunk_fields, 1 << 20,
		   "unread data, oldest first"),
	FIELD_END,
};

static int by_identity(const void *a, const void *b)
{
	const struct file *x = &((const struct pipe_end *)a)->file;
	const struct file *y = &((const struct pipe_end *)b)->file;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return (x->device > y->device) - (x->device < y->device);
}

/* The end of the same pipe that was seen first, this one perhaps. */
static struct pipe_end *first_end(struct dump *dump, const struct descriptor *descriptor,
				  struct pipe_end *end)
{
	struct pipe_end **found;

	end->file.inode = descriptor->stat.st_ino;
	end->file.device = descriptor->stat.st_dev;
	found = tsearch(end, &dump->pipe_ends, by_identity);
	return found ? *found : NULL;
}

/* tee(2) leaves the original untouched; the copy may then be read. */
static struct cr_error *copy_contents(int from, size_t capacity, struct pool *pool,
				      struct pipe_end *end)
{
	_cleanup_free_ uint8_t *buffer = malloc(capacity);
	int ends[2];
	struct cr_error *error = NULL;
	ssize_t got;

	if (!buffer)
		return error_nomem();
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_sys("Failed to make a pipe");
	_cleanup_close_ int out = ends[0], in = ends[1];
	if (fcntl(in, F_SETPIPE_SZ, capacity) < 0)
		return error_sys("Failed to make a pipe of %zu bytes", capacity);
	got = tee(from, in, capacity, SPLICE_F_NONBLOCK);
	if (got < 0 && errno != EAGAIN)
		return error_sys("Failed to copy the contents of a pipe");
	while (!error && (got = read(out, buffer, capacity)) > 0) {
		struct pipe_chunk *chunk = list_append(pool, &end->contents, sizeof(*chunk));

		if (chunk)
			chunk->data.data = pool_memdup(pool, buffer, (size_t)got);
		if (!chunk || !chunk->data.data)
			return error_nomem();
		chunk->data.len = (size_t)got;
	}
	/* a stream comes out in one piece, since the buffer is as large as the pipe */
	end->packets |= end->contents.count > 1;
	return error;
}

struct cr_error *pipe_dump(struct dump *dump, const struct descriptor *descriptor, void *state)
{
	struct pipe_end *end = state, *first = first_end(dump, descriptor, end);
	char name[32];
	_cleanup_close_ int fd = -1;
	int capacity;

	if (!first)
		return error_nomem();
	/* a new end of our own: the old one may be the writing one */
	snprintf(name, sizeof(name), "fd/%d", descriptor->fd);
	fd = openat(descriptor->process->proc, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	capacity = fd < 0 ? -1 : fcntl(fd, F_GETPIPE_SZ);
	if (capacity < 0)
		return error_sys("Failed to open %s", descriptor_name(dump, descriptor));
	end->capacity = (uint64_t)capacity;
	end->first = first == end;
	/* writers make packets, but whoever was seen first carries them */
	first->packets |= (descriptor->flags & O_DIRECT) != 0;
	return end->first ? copy_contents(fd, (size_t)capacity, dump->image.pool, end) : NULL;
}

/* ---- restart ---- */

/* A pipe that stands; its ends wait until somebody wants them. */
struct standing_pipe {
	struct pipe_end identity; /* of the first end: by_identity() */
	int ends[2];
	bool taken[2];
};

static struct cr_error *stand(struct restore *restore, const struct pipe_end *end,
			      struct cr_error *(*make)(struct restore *restore,
						       const struct pipe_end *end, int ends[2]),
			      struct standing_pipe **ret)
{
	struct standing_pipe **found = tfind(end, &restore->pipes, by_identity);

	if (found) {
		*ret = *found;
		return NULL;
	}
	*ret = pool_calloc(restore->image.pool, 1, sizeof(**ret));
	if (!*ret)
		return error_nomem();
	(*ret)->identity = *end;
	TRY(make(restore, end, (*ret)->ends));
	return tsearch(*ret, &restore->pipes, by_identity) ? NULL : error_nomem();
}

static struct cr_error *fill(const struct pipe_end *end, int fd)
{
	const struct pipe_chunk *chunk = end->contents.items;

	if (fcntl(fd, F_SETPIPE_SZ, end->capacity) < 0)
		return error_remedy(error_sys("Failed to give a pipe its size of %lu bytes",
					      (unsigned long)end->capacity),
				    "Raise fs.pipe-max-size on this host");
	if (fcntl(fd, F_SETFL, O_NONBLOCK | (end->packets ? O_DIRECT : 0)) < 0)
		return error_sys("Failed to set the flags of a pipe");
	for (size_t i = 0; i < end->contents.count; i++) {
		ssize_t put = write(fd, chunk[i].data.data, chunk[i].data.len);

		if (put < 0 || (size_t)put != chunk[i].data.len)
			return error_sys("Failed to fill a pipe");
	}
	return NULL;
}

/* The end itself where it is free and fits, else a new open file description of the same pipe. */
static struct cr_error *take(struct standing_pipe *pipe, struct object *object,
			     const struct file *file)
{
	int mode = (int)file->flags & O_ACCMODE, which = mode == O_WRONLY;
	char name[64];

	if (file->flags & O_PATH)
		mode = O_PATH;
	if (mode != O_RDWR && mode != O_PATH && !pipe->taken[which] &&
	    pipe->ends[0] != pipe->ends[1]) {
		pipe->taken[which] = true;
		object->fd = pipe->ends[which];
		return NULL;
	}
	snprintf(name, sizeof(name), "/proc/self/fd/%d", pipe->ends[which]);
	object->fd = open(name, mode | O_NONBLOCK | O_CLOEXEC);
	return object->fd < 0 ? error_sys("Failed to open a pipe again") : NULL;
}

struct cr_error *pipe_restore_end(struct restore *restore, struct object *object,
				  const struct pipe_end *end,
				  struct cr_error *(*make)(struct restore *restore,
							   const struct pipe_end *end, int ends[2]))
{
	struct standing_pipe *pipe;

	TRY(stand(restore, end, make, &pipe));
	if (end->first)
		TRY(fill(end, pipe->ends[1]));
	TRY(take(pipe, object, &end->file));
	return file_set_flags(object, &end->file);
}

static void finish(void *node)
{
	struct standing_pipe *pipe = node; /* lives in the pool */

	if (!pipe->taken[0])
		close(pipe->ends[0]);
	if (!pipe->taken[1] && pipe->ends[1] != pipe->ends[0])
		close(pipe->ends[1]);
}

void pipe_finish(struct restore *restore)
{
	tdestroy(restore->pipes, finish);
	restore->pipes = NULL;
}

static bool pipe_claims(const struct descriptor *descriptor)
{
	return S_ISFIFO(descriptor->stat.st_mode) && descriptor->path.data[0] != '/';
}

static struct cr_error *make_pipe(struct restore *restore, const struct pipe_end *end, int ends[2])
{
	(void)restore;
	(void)end;
	return pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? error_sys("Failed to make a pipe") : NULL;
}

static struct cr_error *pipe_restore(struct restore *restore, struct object *object,
				     const void *state)
{
	return pipe_restore_end(restore, object, state, make_pipe);
}

const struct kind pipe_kind = {
	.name = "pipe",
	.doc = "Pipe, with what nobody has read yet",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct pipe_end),
	.fields = pipe_fields,
	.claims = pipe_claims,
	.dump_file = pipe_dump,
	.restore_file = pipe_restore,
};
