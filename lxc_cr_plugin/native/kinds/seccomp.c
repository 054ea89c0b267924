/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which system calls a thread may make. The filters that the runtime loads before it starts init are
 * inherited by every task, and the runtime loads them again at restart; those of the container's own
 * are loaded on top. None is in force before the release: PTRACE_O_SUSPEND_SECCOMP.
 */
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "seccomp_filter.h"

extern const struct kind seccomp_kind;

enum { DISABLED, STRICT, FILTER }; /* SECCOMP_MODE_... */

struct seccomp {
	uint32_t mode;
	uint32_t newest;
};

static const struct field seccomp_fields[] = {
	FIELD_UINT(struct seccomp, mode, DISABLED, FILTER, "0 none, 1 strict, 2 filters"),
	FIELD_UINT(struct seccomp, newest, 0, UINT32_MAX, "newest filter, object; 0: none"),
	FIELD_END,
};

static struct cr_error *seccomp_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct seccomp *seccomp = state;

	seccomp->mode = thread->status.seccomp;
	return seccomp_filter_dump(dump, thread, &seccomp->newest);
}

static struct cr_error *check_runtime(const struct thread *thread, const struct list *chain,
				      uint32_t loaded)
{
	bool same = loaded <= chain->count;

	for (uint32_t i = 0; same && i < loaded; i++)
		TRY(seccomp_filter_matches(thread->host_tid, i, ((struct object **)chain->items)[i],
					   &same));
	if (same)
		return NULL;
	return error_remedy(
		error_new(CR_HOST,
			  "The container had %zu seccomp filters and gets %u now, or other ones",
			  chain->count, loaded),
		"Its lxc.seccomp.profile has changed since the checkpoint; set it back");
}

/* How many of the oldest filters all threads of a process have in common. */
static struct cr_error *count_common(struct restore *restore, const struct process *process,
				     const struct list *chain, size_t *ret)
{
	*ret = chain->count;
	for_each (struct thread *, thread, &process->threads) {
		const struct seccomp *other = thread_state(thread, &seccomp_kind);
		struct object **ours = chain->items, **theirs;
		struct list list = {0};
		size_t same = 0;

		TRY(seccomp_filter_chain(restore, other->newest, &list));
		theirs = list.items;
		while (same < *ret && same < list.count && ours[same] == theirs[same])
			same++;
		*ret = same;
	}
	return NULL;
}

static struct cr_error *check_can_load(const struct restore *restore, const struct thread *thread)
{
	if (restore->seccomp_suspended)
		return NULL;
	return error_remedy(error_new(CR_HOST,
				      "Thread %d has seccomp filters of its own, which would be in "
				      "the way of the restart",
				      thread->tid),
			    "It takes CAP_SYS_ADMIN, no seccomp filter around lxc-cr itself, and a "
			    "kernel with CONFIG_CHECKPOINT_RESTORE=y");
}

/* Those that all threads have are loaded into all at once and stay one and the same, as
 * SECCOMP_FILTER_FLAG_TSYNC wants them. */
static struct cr_error *load(struct restore *restore, struct thread *thread,
			     const struct list *chain, const struct proc_status *now)
{
	const struct process *process = thread->process;
	bool first = thread == process_leader(process) && process->threads.count > 1;
	size_t common = 0;

	TRY(check_can_load(restore, thread));
	/* who may not do it without has done it under no_new_privs */
	if (!(now->cap_effective & (1ull << CAP_SYS_ADMIN)))
		program_call(restore->program, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS,
			     1, 0, 0, 0);
	if (first)
		TRY(count_common(restore, process, chain, &common));
	for (size_t i = now->seccomp_filters; i < chain->count; i++)
		TRY(seccomp_filter_load(restore, ((struct object **)chain->items)[i], i < common));
	return NULL;
}

static struct cr_error *seccomp_restore(struct restore *restore, struct thread *thread,
					const void *state)
{
	const struct seccomp *seccomp = state;
	struct list chain = {0};
	const struct proc_status *now = &thread->status;

	TRY(restore_status(restore, thread));
	TRY(seccomp_filter_chain(restore, seccomp->newest, &chain));
	if (thread->host_tid == restore->init || now->seccomp_filters > chain.count)
		TRY(check_runtime(thread, &chain, now->seccomp_filters));
	if (chain.count > now->seccomp_filters)
		TRY(load(restore, thread, &chain, now));
	if (seccomp->mode != STRICT)
		return NULL;
	TRY(check_can_load(restore, thread));
	program_call(restore->program, "enter seccomp's strict mode", SYS_prctl, PR_SET_SECCOMP,
		     STRICT);
	return NULL;
}

const struct kind seccomp_kind = {
	.name = "seccomp",
	.doc = "System call filters of a thread, or strict mode",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct seccomp),
	.fields = seccomp_fields,
	.dump_thread = seccomp_dump,
	.restore_thread = seccomp_restore,
};
