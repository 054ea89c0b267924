/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "births_plan.h"
#include "kinds/zombie.h"
#include "sharing.h"

/* ---- one after the other goes ---- */

static struct cr_error *add_step(struct plan *plan, enum step_sort sort, struct thread *thread,
				 struct birth_step **ret)
{
	struct birth_step *step =
		list_append(plan->image->pool, &plan->image->births, sizeof(*step));

	if (!step)
		return error_nomem();
	step->sort = sort;
	step->thread = thread;
	if (ret)
		*ret = step;
	return NULL;
}

static struct cr_error *take_table(struct plan *plan, struct thread *maker, struct thread *table,
				   enum share sort)
{
	struct thread *own = maker->birth->tables[sort];

	if (own)
		own->birth->holders[sort]--;
	maker->birth->tables[sort] = table;
	table->birth->holders[sort]++;
	return births_add_holder(plan, &table->birth->members[sort], maker);
}

/* What the maker had before; forwards, what it does when the child stands. */
static struct cr_error *take(struct plan *plan, const struct match *match,
			     const struct thread *child)
{
	struct thread *maker = match->maker, *leader = process_leader(maker->process);
	uint64_t flags = 0;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		if (!(match->takes & 1u << sort))
			continue;
		TRY(take_table(plan, maker, child->birth->tables[sort], sort));
		if (sort != SHARE_MEMORY && sort != SHARE_SIGHAND)
			flags |= sharing_flag(sort);
	}
	if (match->takes & 1u << SHARE_MEMORY) {
		maker->birth->executes = true;
		TRY(add_step(plan, STEP_EXECUTE, maker, NULL));
	}
	/* zombies need not give anything up */
	if (flags && !process_state(maker->process, &zombie_kind)) {
		struct birth_step *step = NULL;

		TRY(add_step(plan, STEP_GIVE_UP, maker, &step));
		step->flags = flags;
	}
	if (!match->takes_session)
		return NULL;
	leader->birth->session->members--;
	leader->birth->session = child->birth->session;
	leader->birth->session->members++;
	TRY(births_add_holder(plan, &leader->birth->session->list, leader));
	return add_step(plan, STEP_LEAD, leader, NULL);
}

static bool leads_session(const struct thread *thread)
{
	return thread_is_leader(thread) &&
	       thread->process->number == thread->birth->session->number;
}

/* What it does between its birth and that of its first child. */
static struct cr_error *begin(struct plan *plan, struct thread *thread)
{
	if (leads_session(thread))
		TRY(add_step(plan, STEP_LEAD, thread, NULL));
	if (!thread_is_leader(thread) || thread->birth->unbuilt)
		return NULL;
	if (!thread->birth->executes)
		return add_step(plan, STEP_BUILD, thread, NULL);
	/* all others have it from here: what they have must be there before it executes */
	if (birth_is_alone(thread, SHARE_MEMORY)) {
		struct birth_step *step = NULL;

		TRY(add_step(plan, STEP_BUILD, thread, &step));
		step->of = thread->birth->tables[SHARE_MEMORY]->process;
	}
	return NULL;
}

static bool has_from(const struct thread *child, const struct thread *maker, enum share sort)
{
	const struct thread *table = child->birth->tables[sort];

	return table && table == maker->birth->tables[sort];
}

static uint64_t clone_flags(const struct thread *maker, const struct thread *child)
{
	uint64_t flags = 0;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		if (has_from(child, maker, sort))
			flags |= sharing_flag(sort);
	}
	return flags;
}

/* Is it the turn of those that must be made before their parent has its own memory? */
static bool is_early_turn(const struct process *parent)
{
	const struct birth *birth = process_leader(parent)->birth;

	return birth->children == birth->early;
}

static bool is_early_yet(const struct thread *child)
{
	return !child->birth->is_early || is_early_turn(child->process->parent);
}

/* Its parent comes to its own memory when it stands. */
static struct cr_error *build_later(struct plan *plan, const struct thread *child,
				    const struct match *match)
{
	struct thread *parent = process_leader(child->process->parent);

	if (match->maker->process != parent->process || !parent->process->parent ||
	    parent->birth->unbuilt || parent->birth->executes)
		return NULL;
	parent->birth->unbuilt = true;
	return add_step(plan, STEP_BUILD, parent, NULL);
}

static struct cr_error *go(struct plan *plan, struct thread *child, const struct match *match)
{
	struct birth *birth = child->birth;
	struct birth_step *step = NULL;

	if (birth->is_early && is_early_yet(child))
		TRY(build_later(plan, child, match));
	TRY(take(plan, match, child));
	TRY(begin(plan, child));
	TRY(add_step(plan, STEP_MAKE, child, &step));
	step->maker = match->maker;
	step->way = match->way;
	step->session = match->session;
	step->flags = clone_flags(match->maker, child);
	/* who shares its memory must find it there: then it is built as early as can be */
	if (has_from(child, match->maker, SHARE_MEMORY))
		process_leader(match->maker->process)->birth->unbuilt = false;
	birth->gone = true;
	plan->left--;
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		if (birth->tables[sort])
			birth->tables[sort]->birth->holders[sort]--;
	}
	if (!thread_is_leader(child)) {
		process_leader(child->process)->birth->apart--;
		return NULL;
	}
	birth->session->members--;
	process_leader(child->process->parent)->birth->children--;
	if (birth->is_early)
		process_leader(child->process->parent)->birth->early--;
	return NULL;
}

/* ---- who has made it ---- */

/* Takes the best of those who could have. */
static void consider(struct thread *maker, const struct thread *child, struct match *best)
{
	struct match match;

	if (births_match(maker, child, &match) &&
	    (!best->maker || births_cost(&match) < births_cost(best)))
		*best = match;
}

static bool is_found(const struct match *best)
{
	return best->maker && !births_cost(best);
}

static void consider_all(const struct list *makers, const struct thread *child, struct match *best)
{
	for_each (struct thread *, maker, makers) {
		if (is_found(best))
			return;
		consider(maker, child, best);
	}
}

/* Of those its parent and who is below it: they stand together in the list. */
static void consider_family(const struct list *makers, const struct thread *child,
			    struct match *best)
{
	const struct process *parent = child->process->parent;
	struct thread *const *maker = makers->items;

	for (size_t i = births_find_place(makers, parent->place);
	     i < makers->count && maker[i]->process->place < parent->place + parent->family; i++) {
		if (is_found(best))
			return;
		consider(maker[i], child, best);
	}
}

static struct match find_maker(const struct thread *child)
{
	struct process *process = child->process, *parent = process->parent;
	struct match best = {0};

	if (!thread_is_leader(child)) {
		consider_all(&process->threads, child, &best);
		return best;
	}
	consider_all(&parent->threads, child, &best);
	for (unsigned int sort = 0; sort < SHARE_SORTS && !is_found(&best); sort++) {
		if (!birth_is_alone(child, sort))
			consider_family(&child->birth->tables[sort]->birth->members[sort], child,
					&best);
	}
	consider_family(&child->birth->session->list, child, &best);
	return best;
}

static bool is_init(const struct thread *thread)
{
	return !thread->process->parent && thread_is_leader(thread);
}

static bool may_go(const struct thread *thread)
{
	const struct birth *birth = thread->birth;

	return !birth->gone && !birth->children && !birth->apart && !is_init(thread);
}

/* ---- whose turn it is ---- */

/* Has anything changed for it? */
static struct cr_error *look_at(struct plan *plan, struct thread *thread)
{
	if (thread->birth->is_ready || !may_go(thread))
		return NULL;
	thread->birth->is_ready = true;
	return births_append(plan, &plan->ready, thread);
}

static struct cr_error *look_at_children(struct plan *plan, const struct process *process)
{
	for_each (struct process *, child, &process->children)
		TRY(look_at(plan, process_leader(child)));
	return NULL;
}

/* Who is the last of those has it alone now. */
static struct cr_error *look_at_last(struct plan *plan, const struct list *holders, size_t left)
{
	if (left != 1)
		return NULL;
	for_each (struct thread *, holder, holders) {
		TRY(look_at(plan, holder));
		if (!holder->birth->gone)
			TRY(look_at_children(plan, holder->process));
	}
	return NULL;
}

/* What may be otherwise now that @child has gone. */
static struct cr_error *look_around(struct plan *plan, const struct thread *child,
				    const struct match *match)
{
	const struct birth *birth = child->birth;
	struct process *process = child->process;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		const struct birth *table = birth->tables[sort] ? birth->tables[sort]->birth : NULL;

		if (table)
			TRY(look_at_last(plan, &table->members[sort], table->holders[sort]));
	}
	if (births_cost(match))
		TRY(look_at_children(plan, match->maker->process));
	if (!thread_is_leader(child))
		return look_at(plan, process_leader(process));
	TRY(look_at_last(plan, &birth->session->list, birth->session->members));
	if (!birth->is_early && is_early_turn(process->parent))
		TRY(look_at_children(plan, process->parent));
	return look_at(plan, process_leader(process->parent));
}

/*
 * The lower, the sooner; 0: at once, for nobody was anything else before. execve(2) takes away what is
 * shared of the descriptors too, so it must have come after all that.
 */
static unsigned int rank(const struct thread *child, const struct match *match)
{
	unsigned int ret = (unsigned int)births_cost(match);

	if (ret && !(match->takes & 1u << SHARE_MEMORY))
		ret += RANKS / 4;
	return is_early_yet(child) ? ret : ret + RANKS / 2;
}

/* It goes if it has a maker of this rank, or waits. */
static struct cr_error *look(struct plan *plan, struct thread *thread, unsigned int most)
{
	struct match match;
	unsigned int its;

	if (!may_go(thread))
		return NULL;
	match = find_maker(thread);
	if (!match.maker)
		return NULL;
	its = rank(thread, &match);
	if (its > most)
		return births_append(plan, &plan->waiting[its].list, thread);
	TRY(go(plan, thread, &match));
	return look_around(plan, thread, &match);
}

static struct thread *next_ready(struct plan *plan)
{
	struct thread *thread;

	if (!plan->ready.count)
		return NULL;
	thread = ((struct thread **)plan->ready.items)[--plan->ready.count];
	thread->birth->is_ready = false;
	return thread;
}

static struct thread *next_waiting(struct plan *plan, unsigned int *at)
{
	for (*at = 0; *at < RANKS; ++*at) {
		struct waiting *waiting = &plan->waiting[*at];

		if (waiting->done < waiting->list.count)
			return ((struct thread **)waiting->list.items)[waiting->done++];
	}
	return NULL;
}

static struct cr_error *look_at_all(struct plan *plan)
{
	for_each (struct thread *, node, &plan->nodes)
		TRY(look_at(plan, node));
	return NULL;
}

/* Until nobody can go. */
static struct cr_error *let_go(struct plan *plan)
{
	struct thread *thread;
	unsigned int at;

	do {
		while ((thread = next_ready(plan)))
			TRY(look(plan, thread, 0));
		thread = next_waiting(plan, &at);
		/* what was found out may hold no more */
		if (thread)
			TRY(look(plan, thread, at));
	} while (thread);
	return NULL;
}

static struct cr_error *let_all_go(struct plan *plan)
{
	size_t before;

	do {
		before = plan->left;
		TRY(look_at_all(plan));
		TRY(let_go(plan));
	} while (plan->left > 1 && plan->left < before);
	return NULL;
}

/* ---- nobody can have made it ---- */

static struct thread *another_holder(const struct thread *thread, enum share sort)
{
	const struct list *members = &thread->birth->tables[sort]->birth->members[sort];

	for_each (struct thread *, member, members) {
		if (member != thread && !member->birth->gone)
			return member;
	}
	return NULL;
}

static struct cr_error *describe(const struct thread *thread)
{
	const struct process *process = thread->process;
	const char *comm = process->stat.comm[0] ? process->stat.comm : "in the image";

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		const struct thread *other =
			birth_is_alone(thread, sort) ? NULL : another_holder(thread, sort);

		if (other)
			return error_object(
				error_new(CR_UNSUPPORTED,
					  "Process %d (%s) shares %s with process %d, and nobody "
					  "could have made it",
					  process->pid, comm, sharing_name(sort),
					  other->process->pid),
				"shared_process");
	}
	return error_object(error_new(CR_UNSUPPORTED,
				      "Process %d (%s) is in a session that it cannot have come "
				      "to as a child of its parent",
				      process->pid, comm),
			    "session");
}

static struct cr_error *refuse(const struct plan *plan)
{
	for_each (struct thread *, node, &plan->nodes) {
		struct cr_error *error;

		if (!may_go(node))
			continue;
		error = error_task(describe(node), node->process->pid, node->process->stat.comm);
		return error_remedy(error, "Not supported: end it, or those that share with it");
	}
	return error_new(CR_INTERNAL, "There is a task that nobody could have made");
}

/* ---- all together ---- */

struct cr_error *births_plan(struct image *image)
{
	struct plan plan = {.image = image};
	struct thread *init;

	memset(&image->births, 0, sizeof(image->births));
	TRY(births_add_tasks(&plan));
	TRY(let_all_go(&plan));
	if (plan.left > 1)
		return refuse(&plan);
	init = *(struct thread **)plan.nodes.items;
	return begin(&plan, init);
}

void births_find_mothers(struct image *image)
{
	const struct birth_step *steps = image->births.items;

	for (size_t i = image->births.count; i-- > 0;) {
		struct thread *thread = steps[i].thread;
		struct process *process = thread->process;

		if (steps[i].sort == STEP_MAKE && thread_is_leader(thread)) {
			process->mother = process_leader(steps[i].maker->process)->birth->source;
			thread->birth->source = process->mother;
		} else if ((steps[i].sort == STEP_BUILD && process->memory) ||
			   steps[i].sort == STEP_EXECUTE) {
			thread->birth->source = steps[i].of ? steps[i].of : process;
		}
	}
}
