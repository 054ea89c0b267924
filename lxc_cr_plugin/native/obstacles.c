/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "obstacles.h"

#include <stdlib.h>
#include <string.h>

static void forget(struct list *list)
{
	struct cr_error **errors = list->items;

	for (size_t i = 0; i < list->count; i++)
		cr_error_free(errors[i]);
	*list = (struct list){0};
}

struct cr_error *obstacles_add(struct obstacles *obstacles, struct pool *pool,
			       struct cr_error *error)
{
	struct cr_error **slot = list_append(pool, &obstacles->met, sizeof(struct cr_error *));

	if (!slot) {
		cr_error_free(error);
		return error_nomem();
	}
	*slot = error;
	return NULL;
}

static int by_message(const void *a, const void *b)
{
	return strcmp((*(struct cr_error *const *)a)->message,
		      (*(struct cr_error *const *)b)->message);
}

static bool holds(const struct list *list, const struct cr_error *error)
{
	return list->count &&
	       bsearch(&error, list->items, list->count, sizeof(struct cr_error *), by_message);
}

/* The same obstacle is met by each descriptor, say, that stands for one open file description. */
size_t obstacles_end_look(struct obstacles *obstacles)
{
	struct cr_error **errors = obstacles->met.items;
	size_t kept = 0;

	if (obstacles->met.count)
		qsort(errors, obstacles->met.count, sizeof(struct cr_error *), by_message);
	for (size_t i = 0; i < obstacles->met.count; i++) {
		bool again = kept && !by_message(&errors[kept - 1], &errors[i]);

		if (again || (obstacles->looks && !holds(&obstacles->found, errors[i])))
			cr_error_free(errors[i]);
		else
			errors[kept++] = errors[i];
	}
	forget(&obstacles->found);
	obstacles->found = obstacles->met;
	obstacles->found.count = kept;
	obstacles->met = (struct list){0};
	obstacles->looks++;
	return kept;
}

/* What a process has is told together, its descriptor 2 before its descriptor 10. */
static int by_process(const void *a, const void *b)
{
	const struct cr_error *x = *(struct cr_error *const *)a, *y = *(struct cr_error *const *)b;

	return x->pid == y->pid ? strverscmp(x->message, y->message)
				: (x->pid > y->pid) - (x->pid < y->pid);
}

void obstacles_tell(struct obstacles *obstacles, const struct cr_listener *listener)
{
	struct cr_error **errors = obstacles->found.items;

	if (!listener || !listener->obstacle)
		return;
	if (obstacles->found.count)
		qsort(errors, obstacles->found.count, sizeof(struct cr_error *), by_process);
	for (size_t i = 0; i < obstacles->found.count; i++)
		listener->obstacle(listener->context, errors[i]);
}

void obstacles_deinit(struct obstacles *obstacles)
{
	forget(&obstacles->met);
	forget(&obstacles->found);
}
