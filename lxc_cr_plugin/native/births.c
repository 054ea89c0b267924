/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "births.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "kinds/zombie.h"
#include "sharing.h"

/* Everybody that is made in a way of its own, in the image's order. */
struct plan {
	struct image *image;
	struct list nodes;  /* struct thread * */
	struct hash tables; /* the first node of a process that has such tables: tables_key() */
};

static bool leads_session(const struct process *process)
{
	return process->session == process->number;
}

bool births_is_orphan(const struct process *process)
{
	const struct process *parent = process->parent;

	if (!parent || leads_session(process) || process->session == parent->session)
		return false;
	return !parent->parent || process->session != parent->parent->session ||
	       !leads_session(parent);
}

static enum birth_stage stage_of(const struct process *process)
{
	return leads_session(process) || process->session == process->parent->session
		       ? STAGE_AFTER
		       : STAGE_BEFORE;
}

enum birth_stage births_stage(const struct thread *thread)
{
	switch (thread->birth->way) {
	case BIRTH_THREAD: return STAGE_THREADS;
	case BIRTH_SIBLING: return STAGE_SIBLINGS;
	case BIRTH_ADOPTED: return STAGE_ADOPTED;
	case BIRTH_CHILD:
	case BIRTH_ORPHAN: break;
	}
	return stage_of(thread->process);
}

static struct cr_error *refuse(const struct thread *thread, const char *object, const char *why,
			       const char *remedy)
{
	const struct process *process = thread->process;
	struct cr_error *error =
		error_new(CR_UNSUPPORTED, "Process %d (%s) %s", process->pid,
			  process->stat.comm[0] ? process->stat.comm : "in the image", why);

	error = error_task(error_object(error, object), process->pid, process->stat.comm);
	return error_remedy(error, "%s", remedy);
}

struct cr_error *births_refuse(const struct thread *thread, const char *why)
{
	return refuse(thread, "shared_process", why, "Not supported: end one of those that share");
}

/* ---- who could make it ---- */

/* Itself, too. */
static bool is_below(const struct process *process, const struct process *ancestor)
{
	return process->place >= ancestor->place &&
	       process->place - ancestor->place < ancestor->family;
}

/*
 * Would the child of a helper of @maker, which is below @parent, be given to @parent, and not to a
 * subreaper before?
 */
static bool is_next_reaper(const struct process *parent, const struct process *maker)
{
	const struct process *next = maker->adopter || !maker->reaper ? maker : maker->reaper;

	return maker == parent || is_below(parent, next);
}

/* In a walk through the tree; parents stand before their children in the list. */
static void find_places(const struct list *list)
{
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
}

static void find_reapers(const struct list *processes)
{
	for_each (struct process *, process, processes) {
		struct process *parent = process->parent;

		process->reaper =
			!parent || !parent->parent || parent->adopter ? parent : parent->reaper;
	}
}

/* Whoever makes a session later is born in one all the same, and so are children from before. */
static bool fits_session(const struct process *child, const struct process *maker)
{
	return maker->session == child->session ||
	       (leads_session(child) && (maker->session == child->parent->session ||
					 !process_leader(child)->birth->makes_before));
}

static bool can_adopt(const struct process *child, const struct process *maker)
{
	return child->exit_signal == SIGCHLD && is_below(maker, child->parent) &&
	       is_next_reaper(child->parent, maker) && fits_session(child, maker);
}

/* Is @maker itself made by @child, at last? */
static bool is_made_by(const struct thread *maker, const struct thread *child)
{
	while (maker && maker != child)
		maker = maker->birth->maker;
	return maker != NULL;
}

/* Could @maker make @child? *way: how. */
static bool can_make(const struct thread *maker, const struct process *child, enum birth_way *way)
{
	const struct process *process = maker->process, *parent = child->parent;

	if (!maker->birth || is_made_by(maker, process_leader(child)))
		return false;
	if (process == parent) {
		*way = BIRTH_CHILD;
		return !births_is_orphan(child);
	}
	/* the kernel gives it the exit signal of who makes it */
	if (process->parent == parent && process->exit_signal == child->exit_signal &&
	    !births_is_orphan(process) && !births_is_orphan(child) &&
	    stage_of(process) == stage_of(child)) {
		*way = BIRTH_SIBLING;
		return true;
	}
	*way = BIRTH_ADOPTED;
	return can_adopt(child, process);
}

/* What is right for whoever shares nothing. */
static void default_maker(struct thread *thread)
{
	struct process *process = thread->process;
	struct birth *birth = thread->birth;

	birth->maker = NULL;
	birth->way = BIRTH_CHILD;
	if (thread != process_leader(process)) {
		birth->maker = process_leader(process);
		birth->way = BIRTH_THREAD;
	} else if (births_is_orphan(process)) {
		birth->way = BIRTH_ORPHAN;
	} else if (process->parent) {
		birth->maker = process_leader(process->parent);
		if (stage_of(process) == STAGE_BEFORE)
			birth->maker->birth->makes_before = true;
	}
}

static bool try_maker(struct thread *maker, struct thread *child)
{
	enum birth_way way;

	if (!can_make(maker, child->process, &way))
		return false;
	child->birth->maker = maker;
	child->birth->way = way;
	return true;
}

/* ---- those who share memory: nobody else can make them ---- */

/* Its parent has the same memory, and could make it. */
static bool is_natural(const struct thread *leader)
{
	const struct process *process = leader->process;

	return process->parent && !births_is_orphan(process) &&
	       process_leader(process->parent)->first[SHARE_MEMORY] == leader->first[SHARE_MEMORY];
}

/* Who has the memory already when @root has it: everybody that comes from there. */
static void spread(struct thread *const *members, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (is_natural(members[i]) &&
		    process_leader(members[i]->process->parent)->birth->reached)
			members[i]->birth->reached = true;
	}
}

static bool attach(struct thread *const *members, size_t count, struct thread *child)
{
	for (size_t i = 0; i < count; i++) {
		if (members[i]->birth->reached && try_maker(members[i], child)) {
			child->birth->reached = true;
			return true;
		}
	}
	return false;
}

/* From @root on; NULL: everybody could be made, otherwise one who could not. */
static struct thread *attach_all(struct thread *const *members, size_t count, struct thread *root)
{
	struct thread *left;
	bool more;

	for (size_t i = 0; i < count; i++)
		members[i]->birth->reached = members[i] == root;
	do {
		more = false;
		left = NULL;
		spread(members, count);
		for (size_t i = 0; i < count; i++) {
			if (members[i]->birth->reached || is_natural(members[i]))
				continue;
			if (attach(members, count, members[i]))
				more = true;
			else
				left = members[i];
		}
	} while (more);
	return left;
}

static void detach_all(struct thread *const *members, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!is_natural(members[i]))
			default_maker(members[i]);
	}
}

/* Somebody has the memory first, made by his parent; from him the others have it. */
static struct cr_error *find_root(struct plan *plan, struct thread *const *members, size_t count)
{
	struct thread *left = NULL;

	for (size_t i = 0; i < count; i++) {
		if (is_natural(members[i]))
			continue;
		left = attach_all(members, count, members[i]);
		if (!left)
			return NULL;
		detach_all(members, count);
	}
	return births_refuse(left, image_text(plan->image,
					      "shares memory with process %d, from where it cannot "
					      "have got it by clone(2) alone",
					      left == members[0] ? members[1]->process->pid
								 : members[0]->process->pid));
}

static int by_memory(const void *a, const void *b)
{
	const struct thread *x = *(struct thread *const *)a, *y = *(struct thread *const *)b;
	uint32_t ours = x->first[SHARE_MEMORY]->id, theirs = y->first[SHARE_MEMORY]->id;

	if (ours != theirs)
		return ours < theirs ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static struct cr_error *share_memory(struct plan *plan)
{
	size_t count = 0;
	struct thread **order = pool_calloc(plan->image->pool, plan->nodes.count, sizeof(*order));

	if (!order)
		return error_nomem();
	for_each (struct thread *, thread, &plan->nodes) {
		if (thread_is_leader(thread))
			order[count++] = thread;
	}
	qsort(order, count, sizeof(*order), by_memory);
	for (size_t i = 0, end; i < count; i = end) {
		struct thread *first = order[i]->first[SHARE_MEMORY];

		for (end = i + 1; end < count && order[end]->first[SHARE_MEMORY] == first; end++)
			continue;
		if (end > i + 1)
			TRY(find_root(plan, order + i, end - i));
	}
	return NULL;
}

/* ---- the others ---- */

static int have_in_common(const struct thread *a, const struct thread *b)
{
	int count = 0;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		count += a->first[sort] == b->first[sort];
	return count;
}

/* Whoever has more of what it has makes it, if he can. */
static void consider(struct thread *maker, struct thread *child)
{
	const struct thread *now = child->birth->maker;
	struct thread *memory = child->first[SHARE_MEMORY];

	if (have_in_common(maker, child) <= (now ? have_in_common(now, child) : 0))
		return;
	if (now && now->first[SHARE_MEMORY] == memory && maker->first[SHARE_MEMORY] != memory)
		return;
	try_maker(maker, child);
}

/* Threads of one process differ in nothing but these. 0: any. */
static uint64_t tables_key(const struct thread *thread, bool fs, bool files)
{
	uint64_t directories = fs ? thread->first[SHARE_FS]->id : 0;

	return directories << 32 | (files ? thread->first[SHARE_FILES]->id : 0);
}

/* The nodes of @process that have most of what @thread has come first; NULL: there is none. */
static void find_alike(const struct plan *plan, const struct process *process,
		       const struct thread *thread, struct thread *ret[3])
{
	for (int i = 0; i < 3; i++)
		ret[i] = hash_find(&plan->tables, process->id, tables_key(thread, i != 2, i != 1));
}

static struct cr_error *note_tables(struct plan *plan, struct thread *thread)
{
	for (int i = 0; i < 3; i++)
		TRY(hash_add(plan->image->pool, &plan->tables, thread->process->id,
			     tables_key(thread, i != 2, i != 1), thread));
	return NULL;
}

/* An orphan that shares, with whoever can make it. */
static struct cr_error *find_maker(struct thread *leader)
{
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		struct birth *first = leader->first[sort]->birth;

		for_each (struct thread *, thread, &first->sharers[sort])
			consider(thread, leader);
	}
	for (unsigned int sort = 0; !leader->birth->maker && sort < SHARE_SORTS; sort++) {
		struct birth *first = leader->first[sort]->birth;

		if (!first->sharers[sort].count)
			continue;
		if (first->orphans & (1u << sort))
			return births_refuse(leader,
					     "was adopted, and shares with somebody elsewhere");
		first->orphans |= 1u << sort;
	}
	return NULL;
}

static struct cr_error *choose_for_process(const struct plan *plan, struct thread *leader)
{
	struct process *process = leader->process;
	struct thread *alike[3];

	if (!process->parent)
		return NULL;
	find_alike(plan, process->parent, leader, alike);
	for (int i = 0; i < 3; i++) {
		if (alike[i])
			consider(alike[i], leader);
	}
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		consider(leader->first[sort], leader);
	/* that one may be nowhere near, but another one is */
	return leader->birth->maker || !leader->birth->shares ? NULL : find_maker(leader);
}

/* Of the threads before it the one that has most of what it has. */
static void choose_for_thread(const struct plan *plan, struct thread *thread)
{
	struct thread *alike[3];

	find_alike(plan, thread->process, thread, alike);
	for (int i = 0; i < 3; i++) {
		struct thread *other = alike[i];

		if (other && other->id < thread->id &&
		    have_in_common(other, thread) > have_in_common(thread->birth->maker, thread))
			thread->birth->maker = other;
	}
}

/* ---- all together ---- */

static struct cr_error *add_node(struct plan *plan, struct thread *thread)
{
	struct thread **slot = list_append(plan->image->pool, &plan->nodes, sizeof(*slot));

	thread->birth = pool_alloc(plan->image->pool, sizeof(*thread->birth));
	if (!slot || !thread->birth)
		return error_nomem();
	*slot = thread;
	default_maker(thread);
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		struct thread *first = thread->first[sort];

		if (first == thread)
			continue;
		thread->birth->shares = true;
		if (!first->birth)
			continue;
		first->birth->shares = true;
		slot = list_append(plan->image->pool, &first->birth->sharers[sort], sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = thread;
	}
	return note_tables(plan, thread);
}

/* They are made like children, and share nothing. */
static struct cr_error *add_zombies(struct plan *plan)
{
	for_each (struct process *, zombie, &plan->image->zombies) {
		struct thread *leader = process_leader(zombie);

		leader->birth = pool_alloc(plan->image->pool, sizeof(*leader->birth));
		if (!leader->birth)
			return error_nomem();
		default_maker(leader);
		zombie->parent->adopter |= births_is_orphan(zombie);
	}
	return NULL;
}

static struct cr_error *add_nodes(struct plan *plan)
{
	for_each (struct process *, process, &plan->image->processes) {
		process->adopter = false;
		for_each (struct thread *, thread, &process->threads) {
			if (thread_is_leader(thread) || sharing_is_apart(thread))
				TRY(add_node(plan, thread));
		}
	}
	for_each (struct thread *, node, &plan->nodes) {
		if (node->birth->way == BIRTH_ORPHAN && !node->birth->shares)
			node->process->parent->adopter = true;
	}
	return add_zombies(plan);
}

static struct cr_error *choose_makers(struct plan *plan)
{
	TRY(share_memory(plan));
	for_each (struct thread *, thread, &plan->nodes) {
		if (thread_is_leader(thread))
			TRY(choose_for_process(plan, thread));
		else
			choose_for_thread(plan, thread);
	}
	for_each (struct thread *, node, &plan->nodes) {
		if (node->birth->way == BIRTH_ORPHAN)
			node->process->parent->adopter = true;
	}
	find_reapers(&plan->image->processes);
	find_reapers(&plan->image->zombies);
	return NULL;
}

/*
 * An orphan is born in its session and given to the nearest reaper above: that must be who has
 * adopted it. Without a leader the reaper makes the session itself.
 */
static struct cr_error *check_orphan(const struct plan *plan, const struct process *orphan)
{
	const struct process *leader = image_process(plan->image, orphan->session);

	if (!leader || leader->reaper == orphan->parent)
		return NULL;
	return refuse(process_leader(orphan), "session",
		      "was adopted by a process that is not above the leader of its session",
		      "Not supported yet; start the program with setsid");
}

/* All who share it must have it from each other: one of them alone has it from nobody. */
static struct cr_error *check_one_root(struct thread *thread, enum share sort)
{
	struct thread *first = thread->first[sort];
	const struct thread *maker = thread->birth->maker;

	if (maker && maker->first[sort] == first)
		return NULL;
	if (first->birth->roots & (1u << sort))
		return births_refuse(thread, sort == SHARE_UNDO
						     ? "shares semaphore adjustments with somebody "
						       "who cannot have made it"
						     : "shares signal dispositions with somebody "
						       "who cannot have made it");
	first->birth->roots |= 1u << sort;
	return NULL;
}

static struct cr_error *check_roots(struct plan *plan)
{
	for_each (struct thread *, thread, &plan->nodes) {
		TRY(check_one_root(thread, SHARE_SIGHAND));
		TRY(check_one_root(thread, SHARE_UNDO));
	}
	return NULL;
}

/* Now that all reapers are known. */
static struct cr_error *check_reapers(const struct plan *plan)
{
	for_each (struct thread *, thread, &plan->nodes) {
		const struct birth *birth = thread->birth;

		if (birth->way == BIRTH_ORPHAN)
			TRY(check_orphan(plan, thread->process));
		if (birth->way == BIRTH_ADOPTED &&
		    !is_next_reaper(thread->process->parent, birth->maker->process))
			return births_refuse(thread,
					     "shares with a process below another subreaper");
	}
	return NULL;
}

static struct cr_error *list_made(struct plan *plan, struct thread *child)
{
	struct thread **slot;

	if (!child->birth->maker)
		return NULL;
	slot = list_append(plan->image->pool, &child->birth->maker->birth->makes, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = child;
	return NULL;
}

/* How many have made one another down to it, and of all on the way that are not known yet. */
static void find_depth(struct thread *thread)
{
	uint32_t depth = 0;
	struct thread *at = thread;

	for (; at && !at->birth->depth; at = at->birth->maker)
		depth++;
	depth += at ? at->birth->depth : 0;
	for (at = thread; at && !at->birth->depth; at = at->birth->maker)
		at->birth->depth = depth--;
}

static struct cr_error *list_all_made(struct plan *plan)
{
	for_each (struct thread *, thread, &plan->nodes) {
		TRY(list_made(plan, thread));
		find_depth(thread);
	}
	return NULL;
}

struct cr_error *births_plan(struct image *image)
{
	struct plan plan = {.image = image};

	find_places(&image->processes);
	TRY(add_nodes(&plan));
	find_reapers(&image->processes);
	TRY(choose_makers(&plan));
	TRY(check_roots(&plan));
	TRY(check_reapers(&plan));
	TRY(list_all_made(&plan));
	TRY(births_carry(image, &plan.nodes));
	TRY(births_check_order(&plan.nodes));
	/* nobody has to wait for them, nor they for anybody */
	for_each (struct process *, zombie, &image->zombies)
		TRY(list_made(&plan, process_leader(zombie)));
	return NULL;
}
