/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who makes whom at a restart.
 *
 * Memory, signal dispositions, descriptors and directories can only be shared by clone(2): a task
 * must be made by one that has what it shall share, and must become the child of its parent all the
 * same. There are these ways, of which births_plan() chooses one for every task:
 *
 *	BIRTH_CHILD	its parent makes it, or the thread of its parent that has the same things
 *	BIRTH_SIBLING	a child of the same parent makes it, with CLONE_PARENT
 *	BIRTH_ADOPTED	a descendant of its parent makes a helper, which makes it and ends: then the
 *			kernel gives it to the parent, which is a subreaper for that moment
 *	BIRTH_THREAD	a thread of the same process makes it
 *	BIRTH_ORPHAN	a helper in its session, that shares nothing: tree.c
 *
 * Descriptors and directories may also come from further away: everybody on the way from one who
 * has them to another is born with them, hands them on, and gives them up by unshare(2) for his own.
 * Of each sort a task can be born with one thing only, and what it hands on after it has given that
 * up is its own. What needs more than that is refused: so is memory that an ancestor has and the
 * parent has not, which only an execve(2) in between can bring about.
 */
#ifndef CR_BIRTHS_H
#define CR_BIRTHS_H

#include "model.h"

enum birth_way { BIRTH_CHILD, BIRTH_SIBLING, BIRTH_ADOPTED, BIRTH_THREAD, BIRTH_ORPHAN };

/* A task makes others in this order. */
enum birth_stage {
	STAGE_THREADS,
	STAGE_SIBLINGS, /* before it makes a session of its own, which they would be born in */
	STAGE_BEFORE,	/* children of the session that it was born in itself */
	STAGE_AFTER,	/* it has made its own session, if it is to lead one */
	STAGE_ADOPTED,
	STAGES,
};

struct birth {
	enum birth_way way;
	struct thread *maker; /* NULL: init, and orphans */
	/* What it is born with, by whose it is; what differs from first[] it gives up later. */
	struct thread *tables[SHARE_SORTS];
	uint32_t given_up; /* 1 << enum share */
	bool made;
	struct list makes; /* struct thread * */
	/* while it is being found out */
	struct list sharers[SHARE_SORTS]; /* of who is first: struct thread *, the others */
	bool shares, reached;
	bool makes_before;	 /* STAGE_BEFORE is not empty */
	uint32_t roots, orphans; /* 1 << enum share */
	uint32_t serial, depth;
	size_t below;
};

/* Was it born in a session that is neither its parent's, nor was that? */
bool births_is_orphan(const struct process *process);
enum birth_stage births_stage(const struct thread *thread);

/* Fill thread->birth of every process, zombies too, and of threads with tables of their own.
 * CR_UNSUPPORTED, with object and task, when there is no way. */
struct cr_error *births_plan(struct image *image);

/* The part of it that is about what comes from further away: birth->tables. */
struct cr_error *births_carry(struct image *image, const struct list *nodes);
/* Can it all be made, in the order that there is? */
struct cr_error *births_check_order(const struct list *nodes);
/* There is no way for this one. */
struct cr_error *births_refuse(const struct thread *thread, const char *why);

/* Has @maker, as it is now, what @child is to get from it? */
bool births_is_ready(const struct thread *maker, const struct thread *child);
/* Flags of clone(2) with which @maker makes @child. */
uint64_t births_flags(const struct thread *maker, const struct thread *child);
/* Flags of unshare(2) for what nobody waits for any more, and note it; 0: nothing. */
uint64_t births_give_up(struct thread *maker);

#endif
