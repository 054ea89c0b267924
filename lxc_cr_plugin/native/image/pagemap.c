/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pages of an address space hold something of their own. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pages.h"

/* linux/fs.h of 6.7; declared here because the headers of a build machine may be older than its
 * kernel. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IOCTL	_IOWR('f', 16, struct scan_arg)
#define SCAN_IS_FILE	(1ull << 2)
#define SCAN_IS_PRESENT (1ull << 3)
#define SCAN_IS_SWAPPED (1ull << 4)
#define SCAN_IS_PFNZERO (1ull << 5)
#define SCAN_IS_GUARD	(1ull << 8) /* 6.15 */

#define PAGEMAP_FILE	(1ull << 61)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_PRESENT (1ull << 63)

static struct cr_error *guard_append(struct pool *pool, struct list *guards, uint64_t page,
				     uint64_t count)
{
	struct guard *last = guards->items;

	if (guards->count && last[guards->count - 1].page + last[guards->count - 1].count == page) {
		last[guards->count - 1].count += count;
		return NULL;
	}
	last = list_append(pool, guards, sizeof(*last));
	if (!last)
		return error_nomem();
	*last = (struct guard){.page = page, .count = count};
	return NULL;
}

/* @told: categories that split regions. */
static struct cr_error *scan(int pagemap, uint64_t start, uint64_t end, uint64_t told,
			     struct pool *pool, struct list *extents, struct list *guards)
{
	struct scan_region regions[1024];
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uint64_t)regions,
		.vec_len = sizeof(regions) / sizeof(regions[0]),
		.category_inverted = SCAN_IS_FILE | SCAN_IS_PFNZERO,
		.category_mask = SCAN_IS_FILE | SCAN_IS_PFNZERO,
		.category_anyof_mask = SCAN_IS_PRESENT | SCAN_IS_SWAPPED,
		.return_mask = told,
	};

	for (;;) {
		int found = ioctl(pagemap, SCAN_IOCTL, &arg);

		if (found < 0)
			return error_sys("Failed to scan the page map");
		for (int i = 0; i < found; i++) {
			uint64_t page = regions[i].start / PAGE;
			uint64_t count = (regions[i].end - regions[i].start) / PAGE;

			/* a guard is a marker, and looks like a page in swap */
			TRY(regions[i].categories & SCAN_IS_GUARD
				    ? guard_append(pool, guards, page, count)
				    : extent_append(pool, extents, page, count, EXTENT_UNREAD));
		}
		/* walk_end is only right when the vector was too short: a scan that came to its end
		 * leaves there the place where the kernel last emptied a buffer of its own */
		if ((uint64_t)found < arg.vec_len)
			return NULL;
		arg.start = arg.walk_end;
	}
}

/* Before 6.7: one word a page. The zero page cannot be told from others; it drops out when pages
 * are written. */
static struct cr_error *read_map(int pagemap, uint64_t start, uint64_t end, struct pool *pool,
				 struct list *extents)
{
	uint64_t entries[4096];

	for (uint64_t page = start / PAGE; page < end / PAGE;) {
		size_t want = sizeof(entries) / sizeof(entries[0]);
		ssize_t got;

		if (want > end / PAGE - page)
			want = end / PAGE - page;
		got = pread(pagemap, entries, want * sizeof(entries[0]),
			    (off_t)(page * sizeof(entries[0])));
		if (got <= 0)
			return error_sys("Failed to read the page map");
		for (size_t i = 0; i < (size_t)got / sizeof(entries[0]); i++, page++) {
			if (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED) &&
			    !(entries[i] & PAGEMAP_FILE))
				TRY(extent_append(pool, extents, page, 1, EXTENT_UNREAD));
		}
	}
	return NULL;
}

static bool is_unknown(const struct cr_error *error)
{
	return error && (error->errnum == ENOTTY || error->errnum == EINVAL);
}

struct cr_error *pages_find(int pagemap, uint64_t start, uint64_t end, struct pool *pool,
			    struct list *extents, struct list *guards)
{
	size_t before = extents->count;
	struct cr_error *error = scan(pagemap, start, end, SCAN_IS_GUARD, pool, extents, guards);

	if (is_unknown(error)) {
		cr_error_free(error);
		error = scan(pagemap, start, end, 0, pool, extents, guards);
	}
	if (!is_unknown(error))
		return error;
	cr_error_free(error);
	extents->count = before;
	return read_map(pagemap, start, end, pool, extents);
}
