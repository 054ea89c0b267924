/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "contents.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/uio.h>

#include "../cleanup.h"
#include "../locks.h"
#include "memory.h"

const struct field contents_fields[] = {
	FIELD_UINT(struct contents, size, 0, INT64_MAX, "length in bytes"),
	FIELD_UINT(struct contents, huge_page, 0, 1ull << 40,
		   "bytes of a hugetlb page; 0: ordinary pages", .optional = true),
	FIELD_ROWS(struct contents, extents, struct extent, extent_fields, 1 << 28,
		   "contents: first page number, count, index in the pages file"),
	FIELD_END,
};

struct contents *contents_of(const struct object *object)
{
	return object->kind->restore_contents ? object->state : NULL;
}

struct cr_error *sight_open(struct dump *dump, const struct sight *sight, struct contents *contents,
			    int *ret)
{
	bool leased = false;

	if (sight->locks)
		TRY(locks_leased(dump, sight->locks, sight->stat.st_ino, &leased));
	contents->lent = leased;
	if (leased)
		return descriptor_borrow(dump, sight->process, sight->locks, ret);
	*ret = openat(sight->process->proc, sight->link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return *ret < 0 ? error_sys("Failed to open /proc/PID/%s", sight->link) : NULL;
}

static int compare(const void *a, const void *b)
{
	const struct contents *x = contents_of(a), *y = contents_of(b);

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return (x->device > y->device) - (x->device < y->device);
}

struct cr_error *contents_object(struct dump *dump, const struct kind *kind,
				 const struct stat *stat, struct object **ret, bool *fresh)
{
	struct contents wanted = {.device = stat->st_dev, .inode = stat->st_ino}, *contents;
	struct object key = {.kind = kind, .state = &wanted}, **found;

	found = tfind(&key, &dump->contents, compare);
	*fresh = !found;
	if (found) {
		*ret = *found;
		return NULL;
	}
	*ret = image_add_object(&dump->image, kind);
	if (!*ret)
		return error_nomem();
	contents = contents_of(*ret);
	contents->size = (uint64_t)stat->st_size;
	contents->device = stat->st_dev;
	contents->inode = stat->st_ino;
	return tsearch(*ret, &dump->contents, compare) ? NULL : error_nomem();
}

/* Straight from the page cache: pages that nobody maps at the moment belong to it too. */
static struct cr_error *copy_range(struct dump *dump, struct contents *contents, int fd, off_t from,
				   off_t to)
{
	uint64_t first = (uint64_t)from / PAGE, count = ((uint64_t)to + PAGE - 1) / PAGE - first;
	uint64_t index, done = 0;
	uint8_t *pages;

	TRY(page_store_take(&dump->image.pages, count, &index));
	pages = page_store_page(&dump->image.pages, index);
	while (done < count * PAGE) {
		ssize_t got =
			pread(fd, pages + done, count * PAGE - done, (off_t)(first * PAGE + done));

		if (got < 0)
			return error_sys("Failed to read contents");
		if (!got)
			break;
		done += (uint64_t)got;
	}
	/* what the arena held before must not show behind the end of the file */
	memset(pages + done, 0, count * PAGE - done);
	return extent_append(dump->image.pool, &contents->extents, first, count, index);
}

struct cr_error *contents_copy(struct dump *dump, struct contents *contents, int fd,
			       const struct stat *stat)
{
	off_t end = 0;

	if (dump->running) {
		dump->contents_bytes += (uint64_t)stat->st_blocks * 512;
		/* so that nobody waits for a disk inside the stop */
		posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
		return NULL;
	}
	/* hugetlb has no holes that lseek(2) knows; those read as zeros, which are not stored */
	if (contents->huge_page || contents->lent)
		return contents->size ? copy_range(dump, contents, fd, 0, (off_t)contents->size)
				      : NULL;
	for (;;) {
		off_t start = lseek(fd, end, SEEK_DATA);

		if (start < 0 && errno == ENXIO)
			return NULL;
		if (start < 0)
			return error_sys("Failed to find contents");
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return error_sys("Failed to find contents");
		/* blocks may be smaller than pages, and no page may be there twice */
		end = (end + PAGE - 1) & ~(off_t)(PAGE - 1);
		TRY(copy_range(dump, contents, fd, start, end));
	}
}

struct cr_error *contents_validate(const struct image *image, const struct object *object)
{
	const struct contents *contents = contents_of(object);
	const struct extent *extents = contents->extents.items;
	uint64_t pages = (contents->size + PAGE - 1) / PAGE;
	size_t count = contents->extents.count;

	TRY(extents_validate(image, &contents->extents));
	if (count && extents[count - 1].page + extents[count - 1].count > pages)
		return error_new(CR_IMAGE, "Object %u has contents behind its end", object->id);
	if (contents->huge_page & (contents->huge_page - 1))
		return error_new(CR_IMAGE, "Object %u has pages of %lu bytes", object->id,
				 (unsigned long)contents->huge_page);
	return NULL;
}

/* ---- restart ---- */

struct cr_error *contents_fd(struct restore *restore, struct process *process, uint32_t id,
			     int *ret)
{
	struct object *object = image_object(&restore->image, id);

	if (!object || !contents_of(object))
		return error_new(CR_IMAGE, "Object %u has no contents in the image", id);
	if (object->fd < 0) {
		TRY(program_run(restore->program));
		TRY(error_wrap(object->kind->restore_contents(restore, process, object),
			       "Failed to restore %s %u", object->kind->name, id));
	}
	*ret = object->fd;
	return NULL;
}

static struct cr_error *reopen(int fd, uint64_t flags, int *ret)
{
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	*ret = open(link, (int)flags | O_CLOEXEC | O_NOCTTY);
	return *ret < 0 ? error_sys("Failed to open it again") : NULL;
}

struct cr_error *contents_keep(struct object *object, int fd)
{
	return reopen(fd, O_PATH, &object->fd);
}

struct cr_error *contents_open(struct restore *restore, struct process *process, uint32_t id,
			       uint64_t flags, int *ret)
{
	int fd;

	TRY(contents_fd(restore, process, id, &fd));
	return error_wrap(reopen(fd, flags, ret), "Failed to restore object %u", id);
}

static struct cr_error *write_mapped(pid_t tid, void *from, uint64_t to, size_t len)
{
	enum { MOST = 1 << 30 }; /* process_vm_writev(2) stops short of 2 GiB */

	for (size_t done = 0, step; done < len; done += step) {
		struct iovec local = {.iov_base = (uint8_t *)from + done};
		struct iovec remote = {.iov_base = (void *)(to + done)};
		ssize_t put;

		step = len - done < MOST ? len - done : MOST;
		local.iov_len = remote.iov_len = step;
		put = process_vm_writev(tid, &local, 1, &remote, 1, 0);
		if (put < 0 && errno == ESRCH)
			return error_new(CR_GONE, "Task %d is gone", tid);
		if (put != (ssize_t)step)
			return error_remedy(error_errno(put < 0 ? errno : ENOMEM,
							"Failed to fill it at 0x%lx",
							(unsigned long)to),
					    "Its memory may be used up: raise the container's "
					    "limit, or vm.nr_hugepages");
	}
	return NULL;
}

struct cr_error *contents_fill_mapped(struct restore *restore, struct process *process,
				      const struct contents *contents, uint64_t address)
{
	const struct extent *extents = contents->extents.items;
	pid_t tid = process_leader(process)->host_tid;

	for (size_t i = 0; i < contents->extents.count; i++) {
		if (extents[i].index != EXTENT_ZERO)
			TRY(write_mapped(
				tid, page_store_page(&restore->image.pages, extents[i].index),
				address + extents[i].page * PAGE, extents[i].count * PAGE));
	}
	return NULL;
}

struct cr_error *contents_fill_file(struct restore *restore, const struct contents *contents,
				    int fd)
{
	const struct extent *extents = contents->extents.items;

	for (size_t i = 0; i < contents->extents.count; i++) {
		const uint8_t *from = page_store_page(&restore->image.pages, extents[i].index);
		uint64_t at = extents[i].page * PAGE, end = at + extents[i].count * PAGE;

		if (extents[i].index == EXTENT_ZERO)
			continue;
		end = end > contents->size ? contents->size : end;
		for (ssize_t put; at < end; at += (uint64_t)put, from += put) {
			put = pwrite(fd, from, end - at, (off_t)at);
			if (put <= 0)
				return error_sys("Failed to write its contents");
		}
	}
	return NULL;
}
