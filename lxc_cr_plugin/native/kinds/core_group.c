/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core_group.h"

#include <linux/prctl.h>
#include <search.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE		 62 /* Linux 5.14 */
#define PR_SCHED_CORE_CREATE	 1
#define PR_SCHED_CORE_SHARE_TO	 2
#define PR_SCHED_CORE_SHARE_FROM 3
#endif

enum { ONE_THREAD = 0 }; /* PR_SCHED_CORE_SCOPE_THREAD */

/* A cookie that was met. */
struct core_cookie {
	uint64_t cookie;
	uint32_t group;
};

static int compare(const void *a, const void *b)
{
	const struct core_cookie *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

/* Init, and who is in its group, have from the runtime what they have. */
struct cr_error *core_group_dump(struct dump *dump, const struct thread *thread, uint32_t *ret)
{
	struct core_cookie *met = pool_alloc(dump->image.pool, sizeof(*met));
	struct core_cookie **slot;

	*ret = 0;
	if (thread->kernel->core_cookie == dump->init->kernel->core_cookie)
		return NULL;
	if (!met)
		return error_nomem();
	met->cookie = thread->kernel->core_cookie;
	if (!met->cookie)
		return error_remedy(
			error_object(error_new(CR_UNSUPPORTED,
					       "Thread %d shares cores with everybody, which init "
					       "does not",
					       thread->tid),
				     "core_scheduling"),
			"Not supported: give the thread a cookie (PR_SCHED_CORE)");
	slot = tsearch(met, &dump->core_cookies, compare);
	if (!slot)
		return error_nomem();
	if (*slot == met)
		met->group = ++dump->core_groups;
	*ret = (*slot)->group;
	return NULL;
}

static int core(int operation, pid_t tid)
{
	return prctl(PR_SCHED_CORE, operation, tid, ONE_THREAD, 0);
}

/* Our own cookie is the only one that can be handed on. */
static int share(pid_t from, pid_t to)
{
	return core(PR_SCHED_CORE_SHARE_FROM, from) < 0 ? -1 : core(PR_SCHED_CORE_SHARE_TO, to);
}

static struct cr_error *make_or_share(struct restore *restore, const struct thread *thread,
				      uint32_t group)
{
	struct list *firsts = &restore->core_firsts;
	pid_t *first;
	int failed;

	if (group > firsts->count + 1)
		return error_new(CR_IMAGE, "Thread %d is in core scheduling group %u of %zu",
				 thread->tid, group, firsts->count);
	if (group <= firsts->count) {
		failed = share(((pid_t *)firsts->items)[group - 1], thread->host_tid);
	} else {
		first = list_append(restore->image.pool, firsts, sizeof(*first));
		if (!first)
			return error_nomem();
		*first = thread->host_tid;
		failed = core(PR_SCHED_CORE_CREATE, thread->host_tid);
	}
	return failed ? error_sys("Failed to give thread %d its core scheduling cookie",
				  thread->tid)
		      : NULL;
}

struct cr_error *core_group_restore(struct restore *restore, const struct thread *thread,
				    uint32_t group)
{
	struct cr_error *error;

	if (!group)
		return NULL;
	error = make_or_share(restore, thread, group);
	/* without hyperthreads nobody shares a core: then there are no cookies */
	if (!error || error->errnum != ENODEV)
		return error;
	cr_error_free(error);
	return NULL;
}
