/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What everybody has at last: there the way back begins. births.h */
#include <stdlib.h>
#include <string.h>

#include "births_plan.h"
#include "kinds/memory.h"
#include "sharing.h"

struct cr_error *births_append(struct plan *plan, struct list *list, void *pointer)
{
	void **slot = list_append(plan->image->pool, list, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = pointer;
	return NULL;
}

static struct cr_error *add_node(struct plan *plan, struct thread *thread)
{
	thread->birth = pool_alloc(plan->image->pool, sizeof(*thread->birth));
	if (!thread->birth)
		return error_nomem();
	thread->birth->children = thread_is_leader(thread) ? thread->process->children.count : 0;
	plan->left++;
	return births_append(plan, &plan->nodes, thread);
}

static struct cr_error *add_tables(struct plan *plan, struct thread *thread)
{
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		struct thread *first = thread->first[sort];

		if (!first)
			continue;
		thread->birth->tables[sort] = first;
		first->birth->holders[sort]++;
		TRY(births_add_holder(plan, &first->birth->members[sort], thread));
	}
	return NULL;
}

/* The first of @holders at this place or behind. */
size_t births_find_place(const struct list *holders, size_t place)
{
	struct thread *const *holder = holders->items;
	size_t from = 0, to = holders->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (holder[middle]->process->place < place)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

struct cr_error *births_add_holder(struct plan *plan, struct list *holders, struct thread *thread)
{
	size_t at = births_find_place(holders, thread->process->place);
	struct thread **slot;

	TRY(births_append(plan, holders, thread));
	slot = (struct thread **)holders->items + at;
	memmove(slot + 1, slot, (holders->count - 1 - at) * sizeof(*slot));
	*slot = thread;
	return NULL;
}

/* In a walk through the tree; parents stand before their children in the list. Zombies
 * have no place of their own. */
static void find_places(const struct image *image)
{
	const struct list *list = &image->processes;
	struct process **processes = list->items;

	for_each (struct process *, process, list)
		process->family = 1;
	for (size_t i = list->count; i-- > 1;)
		processes[i]->parent->family += processes[i]->family;
	for_each (struct process *, child, list) {
		struct process *parent = child->parent;

		child->place = parent ? parent->next_place : 0;
		child->next_place = child->place + 1;
		if (parent)
			parent->next_place += child->family;
	}
	for_each (struct process *, zombie, &image->zombies)
		zombie->place = zombie->parent->place;
}

static struct cr_error *add_nodes(struct plan *plan)
{
	for_each (struct process *, process, &plan->image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (!thread_is_leader(thread) && !sharing_is_apart(thread))
				continue;
			TRY(add_node(plan, thread));
			process_leader(process)->birth->apart += !thread_is_leader(thread);
		}
	}
	for_each (struct thread *, node, &plan->nodes)
		TRY(add_tables(plan, node));
	for_each (struct process *, zombie, &plan->image->zombies)
		TRY(add_node(plan, process_leader(zombie)));
	return NULL;
}

/* ---- sessions ---- */

static int by_session(const void *a, const void *b)
{
	const struct process *x = (*(struct thread *const *)a)->process;
	const struct process *y = (*(struct thread *const *)b)->process;

	return (x->session > y->session) - (x->session < y->session);
}

static struct cr_error *add_session(struct plan *plan, struct thread *const *members, size_t count)
{
	struct session *session = pool_alloc(plan->image->pool, sizeof(*session));

	if (!session)
		return error_nomem();
	session->number = members[0]->process->session;
	for (size_t i = 0; i < count; i++) {
		members[i]->birth->session = session;
		if (!thread_is_leader(members[i]))
			continue;
		session->members++;
		if (members[i]->process->number == session->number)
			session->leader = members[i]->process;
		TRY(births_add_holder(plan, &session->list, members[i]));
	}
	return NULL;
}

static struct cr_error *add_sessions(struct plan *plan)
{
	size_t count = plan->nodes.count;
	struct thread **order =
		pool_memdup(plan->image->pool, plan->nodes.items, count * sizeof(*order));

	if (!order)
		return error_nomem();
	qsort(order, count, sizeof(*order), by_session);
	for (size_t i = 0, end; i < count; i = end) {
		for (end = i + 1; end < count && !by_session(&order[i], &order[end]); end++)
			continue;
		TRY(add_session(plan, order + i, end - i));
	}
	return NULL;
}

/* ---- memory of a grandparent, once copied ---- */

const struct process *births_origin(const struct process *process)
{
	const struct process *at = process->parent;

	if (!at || !process->memory || memory_is_kin(process->memory, at->memory))
		return NULL;
	do
		at = at->parent;
	while (at && !memory_is_kin(process->memory, at->memory));
	return at;
}

/*
 * Who is in between has executed another program since: it must make its child while it still has the
 * memory of the ancestor, and so must everybody on the way there.
 */
static void find_early(const struct plan *plan)
{
	for_each (struct process *, process, &plan->image->processes) {
		const struct process *origin = births_origin(process), *at = process;

		for (; origin && at->parent != origin; at = at->parent) {
			struct birth *birth = process_leader(at)->birth;

			process_leader(at->parent)->birth->early += !birth->is_early;
			birth->is_early = true;
		}
	}
}

struct cr_error *births_add_tasks(struct plan *plan)
{
	find_places(plan->image);
	TRY(add_nodes(plan));
	TRY(add_sessions(plan));
	find_early(plan);
	return NULL;
}
