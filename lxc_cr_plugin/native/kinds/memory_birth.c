/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server forks its workers and goes on to write: then they share among themselves what it had
 * before. So that they do again, it is filled with their pages, they are cloned, and only then does
 * it get its own.
 */
#include <stdlib.h>

#include "memory.h"

/* A child shows @index at @page, and its parent something else. */
struct difference {
	uint64_t page, index;
};

static int compare(const void *a, const void *b)
{
	const struct difference *x = a, *y = b;

	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static struct cr_error *note(struct pool *pool, struct list *differences, uint64_t page,
			     uint64_t index)
{
	struct difference *difference = list_append(pool, differences, sizeof(*difference));

	if (!difference)
		return error_nomem();
	*difference = (struct difference){page, index};
	return NULL;
}

/* Where both have a page and it is not the same one. */
static struct cr_error *find_differences(struct pool *pool, const struct list *parents,
					 const struct list *childs, struct list *ret)
{
	const struct extent *parent = parents->items, *end = parent + parents->count;
	const struct extent *child = childs->items;

	for (size_t i = 0; i < childs->count; i++, child++) {
		if (child->index == EXTENT_ZERO)
			continue;
		while (parent < end && parent->page + parent->count <= child->page)
			parent++;
		for (const struct extent *p = parent;
		     p < end && p->page < child->page + child->count; p++) {
			uint64_t page = p->page > child->page ? p->page : child->page;
			uint64_t last = child->page + child->count;

			if (p->page + p->count < last)
				last = p->page + p->count;
			if (p->index != EXTENT_ZERO &&
			    p->index - p->page == child->index - child->page)
				continue;
			for (; page < last; page++)
				TRY(note(pool, ret, page, child->index + (page - child->page)));
		}
	}
	return NULL;
}

/* Of each page the version that most children show, if more than one does; ascending. */
static struct cr_error *choose(struct pool *pool, struct list *differences, struct list *ret)
{
	const struct difference *all = differences->items;
	size_t count = differences->count;

	if (count)
		qsort(differences->items, count, sizeof(*all), compare);
	for (size_t i = 0, next; i < count; i = next) {
		size_t best = 1;
		uint64_t index = 0;

		next = i;
		while (next < count && all[next].page == all[i].page) {
			size_t first = next;

			while (next < count && !compare(&all[next], &all[first]))
				next++;
			if (next - first > best) {
				best = next - first;
				index = all[first].index;
			}
		}
		if (best > 1)
			TRY(extent_append(pool, ret, all[i].page, 1, index));
	}
	return NULL;
}

/* @extents with @chosen in place of what they have at the same pages. */
static struct cr_error *overlay(struct pool *pool, const struct list *extents,
				const struct list *chosen, struct list *ret)
{
	const struct extent *extent = extents->items;
	const struct extent *over = chosen->items, *end = over + chosen->count;

	for (size_t i = 0; i < extents->count; i++, extent++) {
		uint64_t page = extent->page, last = page + extent->count;

		while (page < last) {
			uint64_t stop = last;
			bool covered;

			while (over < end && over->page + over->count <= page)
				over++;
			covered = over < end && over->page <= page;
			if (covered && over->page + over->count < stop)
				stop = over->page + over->count;
			else if (!covered && over < end && over->page < stop)
				stop = over->page;
			TRY(extent_append(pool, ret, page, stop - page,
					  covered ? over->index + (page - over->page)
					  : extent->index == EXTENT_ZERO
						  ? EXTENT_ZERO
						  : extent->index + (page - extent->page)));
			page = stop;
		}
	}
	return NULL;
}

struct cr_error *memory_find_birth(struct restore *restore, struct process *process)
{
	struct memory_map *memory = process->memory;
	struct pool *pool = restore->image.pool;
	struct list differences = {0}, chosen = {0};

	if (process->children.count < 2)
		return NULL;
	for_each (struct process *, child, &process->children) {
		/* children that have ended have no memory */
		if (child->memory && memory_inherited(child) == memory)
			TRY(find_differences(pool, &memory->extents, &child->memory->extents,
					     &differences));
	}
	TRY(choose(pool, &differences, &chosen));
	return chosen.count ? overlay(pool, &memory->extents, &chosen, &memory->birth) : NULL;
}

const struct list *memory_birth(const struct process *process)
{
	const struct memory_map *memory = process->memory;

	return memory->birth.count ? &memory->birth : &memory->extents;
}
