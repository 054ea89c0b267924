/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Could one task have made another, as both are at this point of the way back? births.h */
#include <signal.h>

#include "births_plan.h"
#include "kinds/zombie.h"

static bool is_zombie(const struct process *process)
{
	return process_state(process, &zombie_kind) != NULL;
}

/* Itself, too. */
static bool is_below(const struct process *process, const struct process *ancestor)
{
	return process->place >= ancestor->place &&
	       process->place - ancestor->place < ancestor->family;
}

static bool find_way(const struct thread *maker, const struct thread *child, enum birth_way *ret)
{
	const struct process *process = maker->process, *parent = child->process->parent;

	if (!thread_is_leader(child)) {
		*ret = BIRTH_THREAD;
		return process == child->process;
	}
	*ret = BIRTH_CHILD;
	if (process == parent)
		return true;
	/* the kernel gives it the exit signal of who makes it */
	*ret = BIRTH_SIBLING;
	if (process->parent == parent && process->exit_signal == child->process->exit_signal)
		return true;
	/* and SIGCHLD to whoever is adopted */
	*ret = BIRTH_ADOPTED;
	return child->process->exit_signal == SIGCHLD && is_below(process, parent);
}

/* Has it come to its memory by execve(2)? Then what it has of these it has alone. */
static bool can_have_executed(const struct thread *maker)
{
	return birth_is_alone(maker, SHARE_MEMORY) && birth_is_alone(maker, SHARE_SIGHAND) &&
	       birth_is_alone(maker, SHARE_FILES) && !maker->birth->executes &&
	       !maker->birth->apart && thread_is_leader(maker) && maker->process->parent &&
	       maker->process->exit_signal == SIGCHLD && !is_zombie(maker->process);
}

static bool can_take(const struct thread *maker, enum share sort)
{
	switch (sort) {
	case SHARE_FS:
	case SHARE_FILES: return birth_is_alone(maker, sort);
	/* threads that were made before would keep the old ones */
	case SHARE_UNDO:
		return birth_is_alone(maker, sort) && !maker->birth->apart &&
		       thread_is_leader(maker);
	case SHARE_MEMORY: return can_have_executed(maker);
	case SHARE_SIGHAND:
	case SHARE_SORTS: break;
	}
	return false;
}

static bool match_tables(const struct thread *maker, const struct thread *child, struct match *ret)
{
	bool thread = ret->way == BIRTH_THREAD;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++) {
		struct thread *table = child->birth->tables[sort];

		if (table && table == maker->birth->tables[sort])
			continue;
		if (thread && sort != SHARE_FS && sort != SHARE_FILES)
			return false;
		if (birth_is_alone(child, sort))
			continue;
		/* dispositions go with the memory */
		if (sort == SHARE_SIGHAND ? !(ret->takes & 1u << SHARE_MEMORY)
					  : !can_take(maker, sort))
			return false;
		ret->takes |= 1u << sort;
	}
	return true;
}

static bool leads(const struct process *process, const struct session *session)
{
	return process->number == session->number;
}

static bool match_session(const struct thread *maker, const struct thread *child, struct match *ret)
{
	/* all threads are in the same */
	struct session *ours = process_leader(maker->process)->birth->session;
	struct session *its = child->birth->session;

	if (ret->way == BIRTH_THREAD)
		return true;
	/* it has made it itself, and all others have it from there */
	if (leads(child->process, its))
		return its->members == 1;
	if (ours == its)
		return true;
	/* a helper makes it, and leaves it when it ends; the parent gets it from a sibling's, too */
	if (!its->leader && its->members == 1 && child->process->exit_signal == SIGCHLD) {
		ret->way = BIRTH_ADOPTED;
		ret->session = its->number;
		return true;
	}
	/* a session comes from its leader, and so does whoever has been in it */
	ret->takes_session = ours->members == 1 && leads(maker->process, ours) &&
			     maker->process->parent &&
			     !(its->leader && is_below(its->leader, maker->process));
	return ret->takes_session;
}

bool births_match(struct thread *maker, const struct thread *child, struct match *ret)
{
	*ret = (struct match){.maker = maker};
	return maker->birth && !maker->birth->gone && maker != child &&
	       find_way(maker, child, &ret->way) && match_tables(maker, child, ret) &&
	       match_session(maker, child, ret);
}

int births_cost(const struct match *match)
{
	int cost = __builtin_popcount(match->takes) + match->takes_session;

	/* execve(2) is what takes longest */
	return match->takes & 1u << SHARE_MEMORY ? cost + SHARE_SORTS : cost;
}
