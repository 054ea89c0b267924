/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process is born into the group of whoever makes it, of which there is one in each session. From
 * there all go to theirs. A group is made by the process whose number it has, for a dead one by a
 * helper of that number. It is gone when the last one leaves: where that process belongs to another
 * group, a helper keeps its place.
 */
#include "groups.h"

#include <sys/syscall.h>

#include "clone.h"
#include "kinds/process.h"

static const struct process_identity *identity_of(const struct process *process)
{
	return process_state(process, &process_kind);
}

/* Is its group another one than that of its session? 0: it is outside. */
static bool is_elsewhere(const struct process *process)
{
	const struct process_identity *identity = identity_of(process);

	return identity->pgid && identity->pgid != identity->sid;
}

static bool is_helped(const struct restore *restore, pid_t group)
{
	return hash_find(&restore->helped_groups, (uint64_t)group, 0);
}

static struct cr_error *set_group(struct restore *restore, pid_t tid, const char *what, pid_t pgid)
{
	program_begin(restore->program, tid);
	program_call(restore->program, what, SYS_setpgid, 0, (uint64_t)pgid);
	return program_run(restore->program);
}

static struct cr_error *make_own(struct restore *restore, const struct process *process)
{
	return set_group(restore, process_leader(process)->host_tid, "make a process group", 0);
}

/* A child of @parent, in its group; it stays until everybody has joined. @pid 0: any. */
static struct cr_error *add_helper(struct restore *restore, const struct process *parent, pid_t pid,
				   struct helper **ret)
{
	struct helper *helper =
		list_append(restore->image.pool, &restore->helpers, sizeof(*helper));

	if (!helper)
		return error_nomem();
	helper->parent = process_leader(parent)->host_tid;
	program_begin(restore->program, helper->parent);
	TRY(clone_process(restore, pid, 0, 0, &helper->host_pid));
	helper->pid = (pid_t)program_result(restore->program, 0);
	if (ret)
		*ret = helper;
	return NULL;
}

/* Its founder has gone to another group, perhaps to that of its session, which must not vanish. */
static struct cr_error *found_and_leave(struct restore *restore, const struct process *founder)
{
	if (!is_elsewhere(founder))
		TRY(add_helper(restore, founder, 0, NULL));
	TRY(make_own(restore, founder));
	return add_helper(restore, founder, 0, NULL);
}

static struct cr_error *stand_in_for_founder(struct restore *restore, const struct process *member,
					     pid_t pgid)
{
	struct helper *helper = NULL;

	TRY(add_helper(restore, member, pgid, &helper));
	return set_group(restore, helper->host_pid, "make a process group", 0);
}

static struct cr_error *make_group(struct restore *restore, struct process *member)
{
	pid_t pgid = identity_of(member)->pgid;
	const struct process *founder;

	if (!is_elsewhere(member))
		return NULL;
	if (pgid == member->pid)
		return make_own(restore, member);
	founder = image_process(&restore->image, pgid);
	if ((founder && identity_of(founder)->pgid == pgid) || is_helped(restore, pgid))
		return NULL;
	TRY(hash_add(restore->image.pool, &restore->helped_groups, (uint64_t)pgid, 0, member));
	return founder ? found_and_leave(restore, founder)
		       : stand_in_for_founder(restore, member, pgid);
}

static struct cr_error *join_group(struct restore *restore, struct process *process)
{
	pid_t pgid = identity_of(process)->pgid;

	if (!pgid || pgid == process->pid ||
	    (!is_elsewhere(process) && !is_helped(restore, process->pid)))
		return NULL;
	return set_group(restore, process_leader(process)->host_tid, "join its process group",
			 pgid);
}

static struct cr_error *for_all(struct restore *restore,
				struct cr_error *(*function)(struct restore *, struct process *))
{
	for_each (struct process *, process, &restore->image.processes)
		TRY(error_task(function(restore, process), process->pid, ""));
	for_each (struct process *, zombie, &restore->image.zombies)
		TRY(error_task(function(restore, zombie), zombie->pid, ""));
	return NULL;
}

struct cr_error *groups_restore(struct restore *restore)
{
	const struct helper *helper = NULL;

	TRY(for_all(restore, make_group));
	TRY(for_all(restore, join_group));
	helper = restore->helpers.items;
	for (size_t i = 0; i < restore->helpers.count; i++)
		TRY(clone_end_helper(restore, &helper[i]));
	return NULL;
}
