/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page contents. During the stop they are copied into an arena that was mapped and touched before;
 * the pages file is written from it afterwards. An extent says which pages of an address space lie
 * where.
 */
#ifndef CR_PAGES_H
#define CR_PAGES_H

#include <sys/types.h>

#include "../error.h"
#include "../log.h"
#include "../pool.h"
#include "record.h"

enum { PAGE = 4096 };

/* @count pages from @page (a page number: address or file offset / PAGE) lie at @index in the page
 * store. */
struct extent {
	uint64_t page;
	uint64_t count;
	uint64_t index; /* EXTENT_ZERO: all zeros, nothing stored */
};

#define EXTENT_ZERO   UINT64_MAX
#define EXTENT_UNREAD (UINT64_MAX - 1) /* while dumping */

struct page_store {
	/* while dumping: anonymous memory; while restoring: the pages file, mapped */
	uint8_t *data;
	uint64_t count; /* pages used */
	uint64_t room;	/* pages mapped */
};

/* Map and touch room for @pages pages. Slow: before the stop. */
struct cr_error *page_store_prepare(struct page_store *store, uint64_t pages);
/* Map the pages file read-only; its size must be a multiple of the page size. */
struct cr_error *page_store_load(struct page_store *store, int image_fd);
void page_store_deinit(struct page_store *store);

/* Room for @pages pages more, contiguous; *index is where. Maps more when the estimate was too
 * small. */
struct cr_error *page_store_take(struct page_store *store, uint64_t pages, uint64_t *index);

static inline uint8_t *page_store_page(const struct page_store *store, uint64_t index)
{
	return store->data + index * PAGE;
}

/* Append to @extents, merging with the last one where both run on. */
struct cr_error *extent_append(struct pool *pool, struct list *extents, uint64_t page,
			       uint64_t count, uint64_t index);

/*
 * Read those of @extents that are EXTENT_UNREAD from process @pid; @mem is its /proc/PID/mem. With
 * @shared, pages may be shared copy-on-write with another process: then only @mem is used, which
 * takes twice as long, because process_vm_readv(2) pins pages and so gives the process private
 * copies of them (Linux kernel commit a7f226604170 ("mm/gup: trigger FAULT_FLAG_UNSHARE when
 * R/O-pinning a possibly shared anonymous page") (in v5.19)).
 */
struct cr_error *pages_copy(struct page_store *store, pid_t pid, int mem, bool shared,
			    struct extent *extents, size_t count);

/* @count pages from @page that nobody may touch: MADV_GUARD_INSTALL. */
struct guard {
	uint64_t page, count;
};

/*
 * Extents of the pages that [start, end) of the process has and the file behind it, if any, does
 * not show: appended as EXTENT_UNREAD. Pages of the zero page are left out. Guard pages go into
 * @guards, where the kernel tells them (6.15). @pagemap is its
 * /proc/PID/pagemap.
 */
struct cr_error *pages_find(int pagemap, uint64_t start, uint64_t end, struct pool *pool,
			    struct list *extents, struct list *guards);

extern const struct field extent_fields[];
extern const struct field guard_fields[];

/*
 * After the stop: renumber the pages without the all-zero ones and write the rest. Each call of
 * pages_compact() rewrites one list of extents; extents that shared a page in the arena share it in
 * the file.
 */
struct page_writer {
	struct page_store *store;
	uint64_t *number; /* [arena index] → 1 + file index, 0: not seen, ~0: zero page */
	uint64_t count;	  /* pages in the file */
	struct pool *pool;
};

struct cr_error *page_writer_init(struct page_writer *writer, struct page_store *store,
				  struct pool *pool);
/* @keep_zero: an all-zero page is remembered as EXTENT_ZERO instead of dropped. */
struct cr_error *page_writer_add(struct page_writer *writer, struct list *extents,
				 bool (*keep_zero)(const void *context, uint64_t page),
				 const void *context);
struct cr_error *page_writer_write(struct page_writer *writer, int image_fd, struct log *log);

#endif
