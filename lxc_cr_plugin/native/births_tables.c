/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors and directories that come from further away than from who makes a task, and in which
 * order they are handed on and given up: births.h */
#include <stdlib.h>

#include "births.h"
#include "sharing.h"

/* What can be given up by unshare(2). */
static const enum share tables[] = {SHARE_FS, SHARE_FILES};

enum { TABLES = sizeof(tables) / sizeof(tables[0]) };

struct carrier {
	struct image *image;
	const struct list *nodes;
	uint32_t serial; /* of what is being looked at */
};

static bool was_visited(const struct carrier *carrier, const struct thread *thread)
{
	return thread->birth->serial == carrier->serial;
}

static struct cr_error *visit(struct carrier *carrier, struct thread *thread, struct list *visited)
{
	struct thread **slot;

	if (was_visited(carrier, thread))
		return NULL;
	slot = list_append(carrier->image->pool, visited, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = thread;
	thread->birth->serial = carrier->serial;
	thread->birth->below = 0;
	return NULL;
}

/*
 * Everybody above a member, once, but nobody above who has made all of them so far: *top, NULL when
 * there is none. The members themselves count.
 */
static struct cr_error *climb(struct carrier *carrier, struct thread *member, struct thread **top,
			      struct list *visited)
{
	struct thread *at = member;

	while (at && !was_visited(carrier, at)) {
		TRY(visit(carrier, at, visited));
		while (*top && (*top)->birth->depth >= at->birth->depth && *top != at) {
			*top = (*top)->birth->maker;
			if (*top)
				TRY(visit(carrier, *top, visited));
		}
		at = *top == at ? NULL : at->birth->maker;
	}
	member->birth->below++;
	return NULL;
}

static int deepest_first(const void *a, const void *b)
{
	const struct thread *x = *(struct thread *const *)a, *y = *(struct thread *const *)b;

	return (x->birth->depth < y->birth->depth) - (x->birth->depth > y->birth->depth);
}

static struct cr_error *carry(struct thread *thread, struct thread *first, enum share sort)
{
	if (!thread->birth->tables[sort]) {
		thread->birth->tables[sort] = first;
		return NULL;
	}
	return births_refuse(thread, sort == SHARE_FS ? "stands between several others that share "
							"directories"
						      : "stands between several others that share "
							"descriptors");
}

/*
 * One thing and all who have it, @count of @members. Whoever has some of them below and others not
 * is born with it.
 */
static struct cr_error *carry_through(struct carrier *carrier, struct thread *const *members,
				      size_t count, enum share sort)
{
	struct thread *first = members[0]->first[sort];
	struct thread *top = members[0];
	struct list visited = {0};

	carrier->serial++;
	TRY(visit(carrier, top, &visited));
	for (size_t i = 0; i < count; i++)
		TRY(climb(carrier, members[i], &top, &visited));
	qsort(visited.items, visited.count, sizeof(struct thread *), deepest_first);
	for_each (struct thread *, thread, &visited) {
		size_t below = thread->birth->below;

		/* here they all meet: it had it once, if it has not got it any more */
		if (below == count)
			return thread->first[sort] == first ? NULL : carry(thread, first, sort);
		TRY(carry(thread, first, sort));
		if (!thread->birth->maker)
			return births_refuse(thread,
					     "was adopted, and shares with somebody elsewhere");
		thread->birth->maker->birth->below += below;
	}
	return NULL;
}

/* The number of who is first, and among them the image's order. */
static int compare_members(const struct thread *x, const struct thread *y, enum share sort)
{
	if (x->first[sort] != y->first[sort])
		return x->first[sort]->id < y->first[sort]->id ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static int by_directories(const void *a, const void *b)
{
	return compare_members(*(struct thread *const *)a, *(struct thread *const *)b, SHARE_FS);
}

static int by_descriptors(const void *a, const void *b)
{
	return compare_members(*(struct thread *const *)a, *(struct thread *const *)b, SHARE_FILES);
}

static struct cr_error *carry_all(struct carrier *carrier, enum share sort)
{
	size_t count = carrier->nodes->count;
	struct thread **order =
		pool_memdup(carrier->image->pool, carrier->nodes->items, count * sizeof(*order));

	if (!order)
		return error_nomem();
	qsort(order, count, sizeof(*order), sort == SHARE_FS ? by_directories : by_descriptors);
	for (size_t i = 0, end; i < count; i = end) {
		for (end = i + 1; end < count && order[end]->first[sort] == order[i]->first[sort];
		     end++)
			continue;
		if (end > i + 1)
			TRY(carry_through(carrier, order + i, end - i, sort));
	}
	return NULL;
}

struct cr_error *births_carry(struct image *image, const struct list *nodes)
{
	struct carrier carrier = {.image = image, .nodes = nodes};

	TRY(carry_all(&carrier, SHARE_FS));
	TRY(carry_all(&carrier, SHARE_FILES));
	for_each (struct thread *, thread, nodes) {
		for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
			if (!thread->birth->tables[sort])
				thread->birth->tables[sort] = thread->first[sort];
		}
	}
	return NULL;
}

/* ---- in which order ---- */

static struct thread *held(const struct thread *maker, enum share sort)
{
	return maker->birth->given_up & (1u << sort) ? maker->first[sort]
						     : maker->birth->tables[sort];
}

bool births_is_ready(const struct thread *maker, const struct thread *child)
{
	for (int i = 0; i < TABLES; i++) {
		const struct thread *wanted = child->birth->tables[tables[i]];

		if (wanted == maker->first[tables[i]] && wanted != held(maker, tables[i]))
			return false;
		if (wanted == maker->birth->tables[tables[i]] && wanted != held(maker, tables[i]))
			return false;
	}
	return true;
}

uint64_t births_flags(const struct thread *maker, const struct thread *child)
{
	uint64_t flags = 0;

	/* zombies have nothing */
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		if (child->birth->tables[sort] && child->birth->tables[sort] == held(maker, sort))
			flags |= sharing_flag(sort);
	}
	return flags;
}

static bool is_waited_for(const struct thread *maker, enum share sort)
{
	for_each (struct thread *, child, &maker->birth->makes) {
		if (!child->birth->made && child->birth->tables[sort] == maker->birth->tables[sort])
			return true;
	}
	return false;
}

uint64_t births_give_up(struct thread *maker)
{
	struct birth *birth = maker->birth;
	uint64_t flags = 0;

	for (int i = 0; i < TABLES; i++) {
		enum share sort = tables[i];

		if (birth->tables[sort] == maker->first[sort] || birth->given_up & (1u << sort) ||
		    is_waited_for(maker, sort))
			continue;
		birth->given_up |= 1u << sort;
		flags |= sharing_flag(sort);
	}
	return flags;
}

/* As tree.c will do it, but without doing anything. */
static bool can_make_all(struct thread *maker, enum birth_stage stage)
{
	bool more, left;

	do {
		more = left = false;
		for_each (struct thread *, child, &maker->birth->makes) {
			if (child->birth->made || births_stage(child) != stage)
				continue;
			if (births_is_ready(maker, child))
				more = child->birth->made = true;
			else
				left = true;
		}
		more |= births_give_up(maker) != 0;
	} while (more);
	return !left;
}

struct cr_error *births_check_order(const struct list *nodes)
{
	for_each (struct thread *, thread, nodes) {
		for (unsigned int stage = 0; stage < STAGES; stage++) {
			if (!can_make_all(thread, stage))
				return births_refuse(
					thread,
					"shares with its children in an order that cannot be "
					"made again");
		}
	}
	for_each (struct thread *, node, nodes) {
		node->birth->made = false;
		node->birth->given_up = 0;
	}
	return NULL;
}
