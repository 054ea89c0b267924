/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pages.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "../cleanup.h"
#include "../parallel.h"

enum { IOV_BATCH = 1024 }; /* UIO_MAXIOV */

const struct field extent_fields[] = {
	FIELD_UINT(struct extent, page, 0, UINT64_MAX / PAGE, "first page number"),
	FIELD_UINT(struct extent, count, 1, UINT64_MAX / PAGE, "pages"),
	FIELD_UINT(struct extent, index, 0, UINT64_MAX, "page number in the pages file"),
	FIELD_END,
};

const struct field guard_fields[] = {
	FIELD_UINT(struct guard, page, 0, UINT64_MAX / PAGE, "first page number"),
	FIELD_UINT(struct guard, count, 1, UINT64_MAX / PAGE, "pages"),
	FIELD_END,
};

static struct cr_error *map_more(struct page_store *store, uint64_t room)
{
	void *data;

	if (store->data)
		data = mremap(store->data, store->room * PAGE, room * PAGE, MREMAP_MAYMOVE);
	else
		data = mmap(NULL, room * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED)
		return error_nomem();
	/* huge pages cost a tenth of the faults; where there are none it is only slower */
	madvise(data, room * PAGE, MADV_HUGEPAGE);
	store->data = data;
	store->room = room;
	return NULL;
}

struct cr_error *page_store_prepare(struct page_store *store, uint64_t pages)
{
	TRY(map_more(store, pages));
	if (madvise(store->data, pages * PAGE, MADV_POPULATE_WRITE) < 0 && errno == ENOMEM)
		return error_remedy(error_errno(ENOMEM, "Failed to get %lu MiB for the checkpoint",
						(unsigned long)(pages * PAGE >> 20)),
				    "The container's memory is copied while it stands; free some "
				    "memory");
	return NULL;
}

struct cr_error *page_store_load(struct page_store *store, int image_fd)
{
	_cleanup_close_ int fd = openat(image_fd, "pages", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat stat;
	void *data;

	if (fd < 0 || fstat(fd, &stat) < 0)
		return error_sys("Failed to open the pages of the image");
	if (stat.st_size % PAGE)
		return error_new(CR_IMAGE, "The pages file of the image is cut off");
	if (!stat.st_size)
		return NULL;
	data = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return error_sys("Failed to map the pages of the image");
	madvise(data, (size_t)stat.st_size, MADV_SEQUENTIAL);
	store->data = data;
	store->count = store->room = (uint64_t)stat.st_size / PAGE;
	return NULL;
}

void page_store_deinit(struct page_store *store)
{
	if (store->data)
		munmap(store->data, store->room * PAGE);
	memset(store, 0, sizeof(*store));
}

struct cr_error *page_store_take(struct page_store *store, uint64_t pages, uint64_t *index)
{
	if (store->count + pages > store->room)
		TRY(map_more(store, (store->count + pages) + (store->room >> 2)));
	*index = store->count;
	store->count += pages;
	return NULL;
}

struct cr_error *extent_append(struct pool *pool, struct list *extents, uint64_t page,
			       uint64_t count, uint64_t index)
{
	struct extent *last =
		extents->count ? (struct extent *)extents->items + extents->count - 1 : NULL;
	bool special = index >= EXTENT_UNREAD;

	if (last && last->page + last->count == page &&
	    (special ? last->index == index
		     : last->index < EXTENT_UNREAD && last->index + last->count == index)) {
		last->count += count;
		return NULL;
	}
	last = list_append(pool, extents, sizeof(*last));
	if (!last)
		return error_nomem();
	*last = (struct extent){.page = page, .count = count, .index = index};
	return NULL;
}

/* One element that the vectored call did not like (PROT_NONE, or gone): through /proc/PID/mem,
 * which forces. */
static struct cr_error *copy_forced(int mem, uint8_t *to, uint64_t from, size_t len)
{
	while (len) {
		ssize_t got = pread(mem, to, len, (off_t)from);

		if (got <= 0)
			return error_errno(got ? errno : EFAULT, "Failed to read memory at 0x%lx",
					   (unsigned long)from);
		to += got;
		from += (uint64_t)got;
		len -= (size_t)got;
	}
	return NULL;
}

static struct cr_error *copy_batch_forced(int mem, uint8_t *to, const struct iovec *remote,
					  size_t count)
{
	for (size_t i = 0; i < count; i++) {
		TRY(copy_forced(mem, to, (uint64_t)remote[i].iov_base, remote[i].iov_len));
		to += remote[i].iov_len;
	}
	return NULL;
}

/* Copy a batch of elements; a short count names the first element that failed. */
static struct cr_error *copy_batch(pid_t pid, int mem, uint8_t *to, struct iovec *remote,
				   size_t count)
{
	while (count) {
		struct iovec local = {.iov_base = to};
		ssize_t got;

		for (size_t i = 0; i < count; i++)
			local.iov_len += remote[i].iov_len;
		got = process_vm_readv(pid, &local, 1, remote, count, 0);
		if (got < 0 && errno == ESRCH)
			return error_new(CR_GONE, "Process %d is gone", pid);
		if (got < 0)
			got = 0;
		if ((size_t)got == local.iov_len)
			return NULL;
		to += got;
		while ((size_t)got >= remote->iov_len) {
			got -= (ssize_t)remote->iov_len;
			remote++;
			count--;
		}
		TRY(copy_forced(mem, to, (uint64_t)remote->iov_base + (uint64_t)got,
				remote->iov_len - (size_t)got));
		to += remote->iov_len - (size_t)got;
		remote++;
		count--;
	}
	return NULL;
}

struct copy {
	const struct page_store *store;
	pid_t pid;
	int mem;
	bool shared;
	const struct extent *extents;
	size_t count;
	uint64_t first; /* index of page 0 of the work */
};

/* The pages that got the indices from @begin to @end, both counted from copy->first. */
static struct cr_error *copy_part(void *context, uint64_t begin, uint64_t end)
{
	const struct copy *copy = context;
	struct iovec remote[IOV_BATCH];
	uint64_t next = begin += copy->first;
	size_t batched = 0;

	end += copy->first;
	for (size_t i = 0; i < copy->count; i++) {
		const struct extent *extent = &copy->extents[i];

		/* what came before is the parent's or another part's */
		if (extent->index <= next && next - extent->index < extent->count && next < end) {
			uint64_t skip = next - extent->index, pages = extent->count - skip;

			if (pages > end - next)
				pages = end - next;
			remote[batched].iov_base = (void *)((extent->page + skip) * PAGE);
			remote[batched++].iov_len = pages * PAGE;
			next += pages;
		}
		if (batched && (batched == IOV_BATCH || next == end || i + 1 == copy->count)) {
			uint8_t *to = page_store_page(copy->store, begin);

			TRY(copy->shared ? copy_batch_forced(copy->mem, to, remote, batched)
					 : copy_batch(copy->pid, copy->mem, to, remote, batched));
			begin = next;
			batched = 0;
		}
	}
	return NULL;
}

struct cr_error *pages_copy(struct page_store *store, pid_t pid, int mem, bool shared,
			    struct extent *extents, size_t count)
{
	enum { GRAIN = 2048 }; /* pages; below that a thread takes longer to start */
	struct copy copy = {store, pid, mem, shared, extents, count, 0};
	uint64_t total = 0, index;

	for (size_t i = 0; i < count; i++) {
		if (extents[i].index == EXTENT_UNREAD)
			total += extents[i].count;
	}
	TRY(page_store_take(store, total, &index));
	copy.first = index;
	for (size_t i = 0; i < count; i++) {
		if (extents[i].index == EXTENT_UNREAD) {
			extents[i].index = index;
			index += extents[i].count;
		}
	}
	return parallel(total, GRAIN, copy_part, &copy);
}
