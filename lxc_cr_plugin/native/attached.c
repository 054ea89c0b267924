/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "attached.h"

#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"

enum { LONGEST_COMMAND = 120 };

/* As ps(1) shows it; empty where it shows none. */
static const char *command_line(struct dump *dump, int proc)
{
	char *text;
	size_t len;
	struct cr_error *error = proc_read(proc, "cmdline", dump->image.pool, &text, &len);

	if (error) {
		cr_error_free(error);
		return "";
	}
	while (len && !text[len - 1])
		len--;
	for (size_t i = 0; i < len; i++) {
		if (!text[i])
			text[i] = ' ';
	}
	if (len > LONGEST_COMMAND) {
		memcpy(text + LONGEST_COMMAND - 3, "...", 3);
		len = LONGEST_COMMAND;
	}
	text[len] = 0;
	return text;
}

/* "process 12 of the host (sh: sh -c ls)" */
static struct cr_error *describe(struct dump *dump, pid_t tgid, struct proc_stat *stat,
				 const char **ret)
{
	_cleanup_close_ int proc = -1;
	const char *command;

	TRY(proc_open(tgid, tgid, &proc));
	TRY(proc_stat(proc, stat));
	command = command_line(dump, proc);
	*ret = image_text(&dump->image, "process %d of the host (%s%s%s)", tgid, stat->comm,
			  *command ? ": " : "", command);
	return *ret ? NULL : error_nomem();
}

static struct cr_error *refuse(const char *who, const struct proc_stat *stat)
{
	struct cr_error *error =
		error_new(CR_ISOLATION,
			  "The container holds %s, but its parent is not in the container", who);

	error = error_task(error_object(error, "attached_process"), 0, stat->comm);
	return error_remedy(error,
			    "It came in through lxc-attach or the like: end it, start it from "
			    "inside the container, or leave it out with --attached drop");
}

/* 0: it has ended, or is none of ours to look at */
static ino_t pid_namespace(pid_t pid)
{
	char path[64];
	struct stat found;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	return stat(path, &found) == 0 ? found.st_ino : 0;
}

/* Up to somebody outside; a parent that was only moved out of the cgroup did not come from there. */
static bool came_in(struct dump *dump, pid_t ppid)
{
	ino_t ours = pid_namespace(dump->options->init_pid);

	while (pid_namespace(ppid) == ours) {
		const struct kernel_task *parent = dump_kernel_task(dump, ppid);

		if (!parent)
			return false;
		ppid = parent->ppid;
	}
	return true;
}

bool attached_is_left_out(const struct dump *dump, pid_t tgid)
{
	return hash_find(&dump->attached, (uint64_t)tgid, 0);
}

static struct cr_error *leave_out(struct dump *dump, pid_t tgid, const char *who)
{
	TRY(hash_add(dump->image.pool, &dump->attached, (uint64_t)tgid, 0, dump));
	if (!dump->running)
		log_say(&dump->log, CR_WARNING, "Left out of the image: %s came in from outside",
			who);
	return NULL;
}

struct cr_error *attached_process(struct dump *dump, pid_t tgid, pid_t ppid)
{
	struct proc_stat stat;
	const char *who = NULL;
	struct cr_error *error = describe(dump, tgid, &stat, &who);

	if (error)
		return dump_refuse(dump, error);
	if (dump->options->drop_attached && came_in(dump, ppid))
		return leave_out(dump, tgid, who);
	return dump_refuse(dump, refuse(who, &stat));
}
