/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who makes whom at a restart, and when.
 *
 * Memory, signal dispositions, descriptors, directories and the session come from whoever calls
 * clone(2): a task must be made by one that has what it shall have, and become the child of its parent
 * all the same. There are these ways:
 *
 *	BIRTH_CHILD	a thread of its parent makes it
 *	BIRTH_SIBLING	a child of the same parent makes it, with CLONE_PARENT
 *	BIRTH_ADOPTED	a descendant of its parent makes a helper, which makes it and ends: then the
 *			kernel gives it to the parent, which is a subreaper for that moment
 *	BIRTH_THREAD	a thread of the same process makes it
 *
 * and a task may have had something else before: it gives up descriptors, directories and semaphore
 * adjustments by unshare(2), its session by setsid(2), memory and dispositions only by execve(2).
 *
 * The plan is made backwards, by taking one task away after the other until init is alone. A task can
 * go when its children are gone and there is one who can have made it: in everything the two agree,
 * or one of them has it alone. What a task has alone it may have got as the last thing; so before it
 * may have had what its child has ("takes", births_match.c), and hands that on until it is its turn to
 * go. The steps of a restart are those of the plan from its end.
 *
 * Whoever agrees with its maker goes at once: that never hinders another, for what it could have made
 * its maker can. Of the others those go first for whom the least has to have been otherwise. That is a
 * guess, and nothing is tried twice: a few histories that random numbers make up are not found again
 * (tests/unit/native/births.c counts them). They are refused at the checkpoint, and nothing is lost.
 */
#ifndef CR_BIRTHS_H
#define CR_BIRTHS_H

#include "model.h"

enum birth_way { BIRTH_CHILD, BIRTH_SIBLING, BIRTH_ADOPTED, BIRTH_THREAD };

enum step_sort {
	STEP_MAKE,
	STEP_BUILD,   /* its memory */
	STEP_LEAD,    /* setsid(2) */
	STEP_GIVE_UP, /* unshare(2) */
	STEP_EXECUTE, /* execve(2) of nothing, then its memory */
};

struct birth_step {
	enum step_sort sort;
	struct thread *thread;
	struct thread *maker;
	enum birth_way way;
	uint64_t flags;	    /* of clone(2) or unshare(2) */
	struct process *of; /* STEP_BUILD: whose memory, NULL: its own */
	pid_t session;	    /* the helper makes it and stands for its dead leader; 0: it does not */
};

struct session;

struct birth {
	/* Backwards from what it is to what it was; NULL: zombies have nothing. */
	struct thread *tables[SHARE_SORTS];
	struct session *session;
	/* Of the tables that it tells of: who has them still, and who had them. */
	size_t holders[SHARE_SORTS];
	struct list members[SHARE_SORTS]; /* struct thread *, by process->place */
	bool gone, is_ready;
	bool executes;		/* it comes to its own memory by STEP_EXECUTE */
	bool unbuilt;		/* its STEP_BUILD is in the plan, later than at its birth */
	size_t apart;		/* of a first thread: others that have a birth, still there */
	size_t children, early; /* of the process, still there */
	bool is_early;		/* it is made before its parent has its own memory */
	/* Forwards: whose memory it shows; there may be a second STEP_BUILD. */
	const struct process *source;
	bool built;
	bool makes; /* others */
};

/* image->births: the steps, the last one first. CR_UNSUPPORTED, with object and task, when there is
 * no way. */
struct cr_error *births_plan(struct image *image);

/* Restart: whose memory everybody is born with: process->mother. */
void births_find_mothers(struct image *image);
/* The next ancestor that has executed the same program, whose memory it got by fork(2), when that is
 * not its parent; otherwise NULL. */
const struct process *births_origin(const struct process *process);

#endif
