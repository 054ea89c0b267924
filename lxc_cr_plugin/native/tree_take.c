/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that the paths of a look hold, read into memory that was touched before: the files of a tmpfs,
 * inside the stop. Several threads at once; files that are large are divided among them.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "api.h"
#include "cleanup.h"
#include "parallel.h"

enum {
	PIECE = 1 << 20, /* of a large file, for one thread */
	ENTRIES_PER_THREAD = 64,
	PIECES_PER_THREAD = 2,
	ALIGNMENT = 64,
};

/* A piece of a large file that is still to be read. */
struct piece {
	size_t entry;
	uint64_t begin, size, at;
};

struct take {
	int root_fd;
	const struct cr_tree_look *look;
	const uint64_t *skipped;
	size_t skipped_count;
	struct cr_arena *arena;
	struct cr_tree_content *contents;
	pthread_mutex_t lock; /* of what follows */
	struct piece *pieces;
	size_t count, room;
	size_t failed;
	int error;
};

/* What one path has besides data. */
struct found {
	struct cr_tree_extent *extents;
	size_t count, room;
	char *xattrs;
	size_t xattrs_size, xattrs_room;
	uint64_t size; /* of all extents */
};

static void found_free(struct found *found)
{
	free(found->extents);
	free(found->xattrs);
}

int cr_arena_make(struct cr_arena *arena, size_t size, size_t warm)
{
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*arena = (struct cr_arena){0};
	if (data == MAP_FAILED)
		return -errno;
	/* a fork of the engine would make every page copy-on-write again */
	madvise(data, size, MADV_DONTFORK);
	madvise(data, size, MADV_HUGEPAGE);
	if (warm > size)
		warm = size;
	if (warm && madvise(data, warm, MADV_POPULATE_WRITE) < 0 && errno == ENOMEM) {
		munmap(data, size);
		return -ENOMEM;
	}
	arena->data = data;
	arena->size = size;
	return 0;
}

void cr_arena_drop(struct cr_arena *arena)
{
	if (arena->data)
		munmap(arena->data, arena->size);
	*arena = (struct cr_arena){0};
}

/* Room for so many bytes, by any thread; UINT64_MAX: there is none. */
static uint64_t allocate(struct cr_arena *arena, uint64_t size)
{
	uint64_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	uint64_t at = __atomic_fetch_add(&arena->used, rounded, __ATOMIC_RELAXED);

	return at + rounded <= arena->size ? at : UINT64_MAX;
}

/* Room for @more elements behind @count; false: no memory. */
static bool reserve(void **list, size_t *room, size_t count, size_t more, size_t size)
{
	size_t wanted = *room ? *room : 16;
	void *larger;

	if (count + more <= *room)
		return true;
	while (wanted < count + more)
		wanted *= 2;
	larger = reallocarray(*list, wanted, size);
	if (!larger)
		return false;
	*list = larger;
	*room = wanted;
	return true;
}

/* ---- extended attributes ---- */

/*
 * A descriptor made with O_PATH shows its attributes by its magic link alone, be it a symbolic link
 * itself; for all others there is a shorter way.
 */
struct place {
	int fd;
	bool by_link;
	char link[sizeof("/proc/self/fd/") + 10];
};

static ssize_t list(const struct place *place, char *names, size_t size)
{
	return place->by_link ? listxattr(place->link, names, size)
			      : flistxattr(place->fd, names, size);
}

static ssize_t get(const struct place *place, const char *name, void *value, size_t size)
{
	return place->by_link ? getxattr(place->link, name, value, size)
			      : fgetxattr(place->fd, name, value, size);
}

/* A NUL-terminated name, four bytes with the size of the value, the value; for each. */
static int add_xattr(struct found *found, const struct place *place, const char *name)
{
	size_t len = strlen(name) + 1;
	ssize_t size = get(place, name, NULL, 0);
	uint32_t stored;

	if (size < 0)
		return -errno;
	if (!reserve((void **)&found->xattrs, &found->xattrs_room, found->xattrs_size,
		     len + sizeof(stored) + (size_t)size, 1))
		return -ENOMEM;
	memcpy(found->xattrs + found->xattrs_size, name, len);
	found->xattrs_size += len + sizeof(stored);
	size = get(place, name, found->xattrs + found->xattrs_size, (size_t)size);
	if (size < 0)
		return -errno;
	stored = (uint32_t)size;
	memcpy(found->xattrs + found->xattrs_size - sizeof(stored), &stored, sizeof(stored));
	found->xattrs_size += (size_t)size;
	return 0;
}

static int find_xattrs(struct found *found, int fd, bool by_link)
{
	struct place place = {.fd = fd, .by_link = by_link};
	_cleanup_free_ char *names = NULL;
	ssize_t size;
	int error = 0;

	if (by_link)
		snprintf(place.link, sizeof(place.link), "/proc/self/fd/%d", fd);
	size = list(&place, NULL, 0);
	if (size <= 0)
		return size < 0 && errno != EOPNOTSUPP ? -errno : 0;
	names = malloc((size_t)size);
	if (!names)
		return -ENOMEM;
	size = list(&place, names, (size_t)size);
	if (size < 0)
		return -errno;
	for (char *name = names; !error && name < names + size; name += strlen(name) + 1)
		error = add_xattr(found, &place, name);
	return error;
}

/* ---- data ---- */

static int add_extent(struct found *found, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return 0;
	if (!reserve((void **)&found->extents, &found->room, found->count, 1,
		     sizeof(*found->extents)))
		return -ENOMEM;
	found->extents[found->count++] = (struct cr_tree_extent){begin, end - begin};
	found->size += end - begin;
	return 0;
}

static int find_extents(struct found *found, int fd, const struct cr_tree_entry *entry)
{
	off_t size = (off_t)entry->size, begin, end = 0;
	int error = 0;

	if (entry->blocks * 512 >= entry->size)
		return add_extent(found, 0, entry->size);
	while (!error && end < size) {
		begin = lseek(fd, end, SEEK_DATA);
		if (begin < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(fd, begin, SEEK_HOLE);
		if (end < 0)
			return -errno;
		error = add_extent(found, (uint64_t)begin, (uint64_t)(end < size ? end : size));
	}
	return error;
}

static int read_all(int fd, char *target, uint64_t size, uint64_t position)
{
	while (size) {
		ssize_t done = pread(fd, target, size, (off_t)position);

		if (done < 0)
			return -errno;
		if (done == 0)
			return -ESTALE; /* somebody outside has made it shorter */
		target += done;
		position += (uint64_t)done;
		size -= (uint64_t)done;
	}
	return 0;
}

static int leave_for_later(struct take *take, size_t index, struct cr_tree_extent extent,
			   uint64_t at)
{
	size_t more = extent.size / PIECE + 1;
	int error = 0;

	pthread_mutex_lock(&take->lock);
	if (!reserve((void **)&take->pieces, &take->room, take->count, more, sizeof(struct piece)))
		error = -ENOMEM;
	for (uint64_t done = 0; !error && done < extent.size; done += PIECE) {
		uint64_t rest = extent.size - done;

		take->pieces[take->count++] = (struct piece){
			.entry = index,
			.begin = extent.begin + done,
			.size = rest < PIECE ? rest : PIECE,
			.at = at + done,
		};
	}
	pthread_mutex_unlock(&take->lock);
	return error;
}

/* What was found of one path goes into the arena: extents, attributes, data. */
static int keep(struct take *take, size_t index, int fd, const struct found *found)
{
	size_t head = found->count * sizeof(*found->extents);
	uint64_t at = allocate(take->arena, head + found->xattrs_size + found->size);
	int error = 0;

	if (at == UINT64_MAX)
		return -ENOSPC;
	take->contents[index] = (struct cr_tree_content){
		.at = at,
		.extents = (uint32_t)found->count,
		.xattrs_size = (uint32_t)found->xattrs_size,
	};
	if (found->count)
		memcpy(take->arena->data + at, found->extents, head);
	if (found->xattrs_size)
		memcpy(take->arena->data + at + head, found->xattrs, found->xattrs_size);
	at += head + found->xattrs_size;
	for (size_t i = 0; !error && i < found->count; i++) {
		struct cr_tree_extent extent = found->extents[i];

		error = extent.size > PIECE
				? leave_for_later(take, index, extent, at)
				: read_all(fd, take->arena->data + at, extent.size, extent.begin);
		at += extent.size;
	}
	return error;
}

static int keep_link(struct take *take, size_t index, int fd, struct found *found)
{
	uint64_t size = take->look->entries[index].size, at;
	size_t head = sizeof(struct cr_tree_extent);
	struct cr_tree_extent whole = {0, size};

	at = allocate(take->arena, head + found->xattrs_size + size);
	if (at == UINT64_MAX)
		return -ENOSPC;
	take->contents[index] = (struct cr_tree_content){at, 1, (uint32_t)found->xattrs_size};
	memcpy(take->arena->data + at, &whole, head);
	if (found->xattrs_size)
		memcpy(take->arena->data + at + head, found->xattrs, found->xattrs_size);
	at += head + found->xattrs_size;
	return readlinkat(fd, "", take->arena->data + at, size) == (ssize_t)size ? 0 : -ESTALE;
}

/* ---- one path ---- */

static bool is_skipped(const struct take *take, const struct cr_tree_entry *entry)
{
	for (size_t i = 0; i < take->skipped_count; i++)
		if (S_ISREG(entry->mode) && take->skipped[i] == entry->inode)
			return true;
	return false;
}

static int open_entry(const struct take *take, size_t index)
{
	const struct cr_tree_entry *entry = &take->look->entries[index];
	const char *path = take->look->paths + entry->path;
	int flags = S_ISREG(entry->mode) ? O_RDONLY | O_NONBLOCK | O_NOATIME | O_NOCTTY : O_PATH;

	return cr_open_beneath(take->root_fd, *path ? path : ".", flags, 0);
}

static bool is_still(const struct cr_tree_entry *entry, const struct stat *stat)
{
	return stat->st_ino == entry->inode && stat->st_mode == entry->mode &&
	       (uint64_t)stat->st_size == entry->size;
}

static int take_entry(struct take *take, size_t index)
{
	const struct cr_tree_entry *entry = &take->look->entries[index];
	_cleanup_(found_free) struct found found = {0};
	_cleanup_close_ int fd = -1;
	struct stat stat;
	int error;

	take->contents[index].at = UINT64_MAX;
	if (is_skipped(take, entry))
		return 0;
	fd = open_entry(take, index);
	if (fd < 0)
		return fd;
	if (fstat(fd, &stat) < 0)
		return -errno;
	if (!is_still(entry, &stat))
		return -ESTALE;
	error = find_xattrs(&found, fd, !S_ISREG(entry->mode));
	if (!error && S_ISREG(entry->mode))
		error = find_extents(&found, fd, entry);
	if (error)
		return error;
	return S_ISLNK(entry->mode) ? keep_link(take, index, fd, &found)
				    : keep(take, index, fd, &found);
}

static int take_piece(struct take *take, const struct piece *piece)
{
	_cleanup_close_ int fd = open_entry(take, piece->entry);

	if (fd < 0)
		return fd;
	return read_all(fd, take->arena->data + piece->at, piece->size, piece->begin);
}

/* ---- all of them ---- */

static bool note(struct take *take, size_t index, int error)
{
	if (!error)
		return true;
	pthread_mutex_lock(&take->lock);
	take->error = error;
	take->failed = index;
	pthread_mutex_unlock(&take->lock);
	return false;
}

static struct cr_error *take_entries(void *context, uint64_t begin, uint64_t end)
{
	struct take *take = context;

	for (size_t i = begin; i < end && note(take, i, take_entry(take, i)); i++)
		;
	return NULL;
}

static struct cr_error *take_pieces(void *context, uint64_t begin, uint64_t end)
{
	struct take *take = context;

	for (size_t i = begin; i < end; i++)
		if (!note(take, take->pieces[i].entry, take_piece(take, &take->pieces[i])))
			break;
	return NULL;
}

int cr_tree_take(int root_fd, const struct cr_tree_look *look, const uint64_t *skipped,
		 size_t skipped_count, struct cr_arena *arena, struct cr_tree_content *ret,
		 size_t *failed)
{
	struct take take = {
		.root_fd = root_fd,
		.look = look,
		.skipped = skipped,
		.skipped_count = skipped_count,
		.arena = arena,
		.contents = ret,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};

	/* neither returns an error of its own: take has them */
	cr_error_free(parallel(look->count, ENTRIES_PER_THREAD, take_entries, &take));
	if (!take.error)
		cr_error_free(parallel(take.count, PIECES_PER_THREAD, take_pieces, &take));
	free(take.pieces);
	*failed = take.failed;
	return take.error;
}
