/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the plan know of each other: births.h */
#ifndef CR_BIRTHS_PLAN_H
#define CR_BIRTHS_PLAN_H

#include "births.h"

enum { RANKS = 64 };

struct waiting {
	struct list list; /* struct thread * */
	size_t done;
};

struct plan {
	struct image *image;
	struct list nodes; /* struct thread *: everybody that is made in a way of its own */
	size_t left;
	struct list ready;	       /* struct thread *: to be looked at */
	struct waiting waiting[RANKS]; /* those for whom somebody must have been something else */
};

struct session {
	pid_t number;
	size_t members;
	const struct process *leader; /* NULL: dead */
	struct list list;	      /* struct thread *, by place: all who had it */
};

/* ---- births_tasks.c ---- */

struct cr_error *births_append(struct plan *plan, struct list *list, void *pointer);
/* In the order of process->place. */
struct cr_error *births_add_holder(struct plan *plan, struct list *holders, struct thread *thread);
size_t births_find_place(const struct list *holders, size_t place);
/* Everybody, in image order, with what they have. */
struct cr_error *births_add_tasks(struct plan *plan);

/* ---- births_match.c ---- */

struct match {
	struct thread *maker;
	enum birth_way way;
	pid_t session;	/* see struct birth_step */
	uint32_t takes; /* 1 << enum share: what the maker had once */
	bool takes_session;
};

static inline bool birth_is_alone(const struct thread *thread, enum share sort)
{
	const struct thread *table = thread->birth->tables[sort];

	return !table || table->birth->holders[sort] == 1;
}

/* Could @maker have made @child? */
bool births_match(struct thread *maker, const struct thread *child, struct match *ret);
/* How much would have to have been otherwise; 0: nothing. */
int births_cost(const struct match *match);

#endif
