/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "isolation.h"

#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "kinds/ipc_namespace.h"

/* What every task of a container shares with its init. The order is that of dump->namespaces. */
static const char *const namespace_names[] = {
	"ns/pid",    "ns/mnt",	"ns/net",
	"ns/ipc",    "ns/uts",	"ns/user",
	"ns/cgroup", "ns/time", "ns/time_for_children",
};

enum { NAMESPACES = sizeof(namespace_names) / sizeof(namespace_names[0]) };

static struct cr_error *read_namespaces(pid_t pid, ino_t ret[NAMESPACES])
{
	_cleanup_close_ int proc = -1;

	TRY(proc_open(pid, pid, &proc));
	for (int i = 0; i < NAMESPACES; i++) {
		struct stat stat;

		/* a kernel without the namespace shows 0 for everybody */
		ret[i] = fstatat(proc, namespace_names[i], &stat, 0) == 0 ? stat.st_ino : 0;
	}
	return NULL;
}

enum { TIME = 7, TIME_FOR_CHILDREN = 8 }; /* in namespace_names */

/* "monotonic  -100  500000000": seconds, and nanoseconds that are added to them. */
static struct cr_error *read_offset(const char *text, const char *clock, int64_t *ret)
{
	const char *line = strstr(text, clock);
	long seconds, rest;

	if (!line || sscanf(line + strlen(clock), "%ld %ld", &seconds, &rest) != 2)
		return error_new(CR_HOST, "timens_offsets does not tell of the %s clock", clock);
	*ret = seconds * 1000000000 + rest;
	return NULL;
}

/* What the container's clocks show beyond those of the host. */
static struct cr_error *read_offsets(struct dump *dump)
{
	_cleanup_close_ int proc = -1;
	char *text;

	if (!dump->namespaces[TIME])
		return NULL; /* a kernel without time namespaces */
	if (dump->namespaces[TIME] != dump->namespaces[TIME_FOR_CHILDREN]) {
		struct cr_error *error = error_new(
			CR_UNSUPPORTED,
			"The container's init has made a time namespace for its children");

		error = error_object(error, "namespace");
		return dump_refuse(dump,
				   error_remedy(error, "Nested namespaces are not supported yet"));
	}
	TRY(proc_open(dump->init->host_tid, dump->init->host_tid, &proc));
	TRY(proc_read(proc, "timens_offsets", dump->image.pool, &text, NULL));
	TRY(read_offset(text, "monotonic", &dump->image.clocks.monotonic_offset));
	return read_offset(text, "boottime", &dump->image.clocks.boottime_offset);
}

/* A container of its own has at least these apart from the host. */
static struct cr_error *check_init(struct dump *dump)
{
	static const int needed[] = {0, 1, 3, 4}; /* pid, mnt, ipc, uts */
	const ino_t *ours;

	TRY(read_namespaces(dump->init->host_tid, dump->namespaces));
	TRY(read_offsets(dump));
	if (!dump->running)
		return NULL;
	/* before this process enters the container's ipc namespace, which it never leaves */
	if (!dump->host_namespaces[0])
		TRY(read_namespaces(getpid(), dump->host_namespaces));
	ours = dump->host_namespaces;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		const char *name = namespace_names[needed[i]] + strlen("ns/");
		struct cr_error *error;

		if (dump->namespaces[needed[i]] != ours[needed[i]])
			continue;
		error = error_new(CR_ISOLATION,
				  "The container shares its %s namespace with the host", name);
		TRY(dump_refuse(dump, error_remedy(error,
						   "Remove the lxc.namespace.keep or share setting "
						   "that says so")));
	}
	return NULL;
}

/* By identity: struct nsproxy holds all but these two. */
static bool shares_all(const struct kernel_task *a, const struct kernel_task *b)
{
	return a->nsproxy && a->nsproxy == b->nsproxy && a->user_ns == b->user_ns &&
	       a->id.namespace && a->id.namespace == b->id.namespace;
}

static struct cr_error *refuse(const struct dump *dump, const struct thread *thread, int namespace)
{
	const struct thread *leader = process_leader(thread->process);
	const struct kernel_id *id = &thread->kernel->id, *of_leader = &leader->kernel->id;
	/* who is in another pid namespace has no number in this one */
	bool inside = id->namespace && id->namespace == dump->init->kernel->id.namespace;
	pid_t pid = inside ? of_leader->number : leader->host_tid;
	const char *comm = thread->process->stat.comm;
	struct cr_error *error;
	char thread_of[32] = "Process";

	if (thread != leader)
		snprintf(thread_of, sizeof(thread_of), "Thread %d of process",
			 inside ? id->number : thread->host_tid);
	error = error_new(CR_UNSUPPORTED, "%s %d%s (%s) is in a %s namespace of its own", thread_of,
			  pid, inside ? "" : " of the host", comm,
			  namespace_names[namespace] + strlen("ns/"));
	error = error_task(error_object(error, "namespace"), inside ? pid : 0, comm);
	return error_remedy(error, "Nested namespaces are not supported yet; end the process "
				   "or its service's sandboxing");
}

static struct cr_error *check_thread(struct dump *dump, const struct thread *thread)
{
	const struct thread *leader = process_leader(thread->process);
	ino_t theirs[NAMESPACES];
	struct cr_error *error;

	if (shares_all(thread->kernel, dump->init->kernel))
		return NULL;
	/* said of its process */
	if (thread != leader && shares_all(thread->kernel, leader->kernel))
		return NULL;
	error = read_namespaces(thread->host_tid, theirs);
	if (error)
		return dump_refuse(dump, error);
	for (int i = 0; i < NAMESPACES; i++) {
		/* a task that is ending has left some of them already */
		if (theirs[i] == dump->namespaces[i] || (dump->running && !theirs[i]))
			continue;
		TRY(dump_refuse(dump, refuse(dump, thread, i)));
	}
	return NULL;
}

struct cr_error *isolation_check(struct dump *dump)
{
	TRY(check_init(dump));
	if (dump->running)
		TRY(ipc_namespace_enter(dump->init->host_tid));
	for_each (struct process *, process, &dump->image.processes) {
		for_each (struct thread *, thread, &process->threads)
			TRY(check_thread(dump, thread));
	}
	return NULL;
}
