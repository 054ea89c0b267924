/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the arena to the pages file: all-zero pages drop out, shared pages stay one. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "../cleanup.h"
#include "pages.h"

#define NUMBER_ZERO UINT64_MAX

struct cr_error *page_writer_init(struct page_writer *writer, struct page_store *store,
				  struct pool *pool)
{
	writer->store = store;
	writer->pool = pool;
	writer->count = 0;
	writer->number = pool_calloc(pool, store->count + 1, sizeof(uint64_t));
	return writer->number ? NULL : error_nomem();
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *word = (const uint64_t *)page;

	/* most pages differ in their first words */
	return !word[0] && !word[1] && !memcmp(page, page + 8, PAGE - 8);
}

static uint64_t number_of(struct page_writer *writer, uint64_t index)
{
	if (!writer->number[index])
		writer->number[index] = is_zero(page_store_page(writer->store, index))
						? NUMBER_ZERO
						: ++writer->count;
	return writer->number[index];
}

struct cr_error *page_writer_add(struct page_writer *writer, struct list *extents,
				 bool (*keep_zero)(const void *context, uint64_t page),
				 const void *context)
{
	const struct extent *old = extents->items;
	struct list compact = {0};

	for (size_t i = 0; i < extents->count; i++) {
		for (uint64_t p = 0; p < old[i].count; p++) {
			uint64_t number = number_of(writer, old[i].index + p);

			if (number == NUMBER_ZERO &&
			    !(keep_zero && keep_zero(context, old[i].page + p)))
				continue;
			TRY(extent_append(writer->pool, &compact, old[i].page + p, 1,
					  number == NUMBER_ZERO ? EXTENT_ZERO : number - 1));
		}
	}
	*extents = compact;
	return NULL;
}

static struct cr_error *write_run(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t put = write(fd, data, len);

		if (put < 0)
			return error_remedy(
				error_sys("Failed to write the pages of the image"),
				"Free some space in the store, or choose another one with "
				"--store");
		data += put;
		len -= (size_t)put;
	}
	return NULL;
}

/* Pages were numbered in the order of the arena, so one pass over it writes the file from front to
 * back. */
struct cr_error *page_writer_write(struct page_writer *writer, int image_fd, struct log *log)
{
	enum { PROGRESS_PAGES = 16384 };
	_cleanup_close_ int fd =
		openat(image_fd, "pages", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	uint64_t begin = 0, written = 0, report = PROGRESS_PAGES;

	if (fd < 0)
		return error_sys("Failed to create the pages file");
	while (begin < writer->store->count) {
		uint64_t end = begin;

		while (end < writer->store->count && end - begin < PROGRESS_PAGES &&
		       writer->number[end] && writer->number[end] != NUMBER_ZERO)
			end++;
		TRY(write_run(fd, page_store_page(writer->store, begin), (end - begin) * PAGE));
		written += end - begin;
		if (written >= report) {
			log_progress(log, "write", written * PAGE, writer->count * PAGE);
			report = written + PROGRESS_PAGES;
		}
		begin = end > begin ? end : begin + 1;
	}
	if (fsync(fd) < 0)
		return error_sys("Failed to write the pages of the image to disk");
	return NULL;
}
